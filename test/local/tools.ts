import { buildTool } from "../../tools/build";
import { buildExample, examples } from "../../tools/examples";
import { consulOf } from "./kube-cluster";

// Finds or builds what the tests of a level run, before the tests: otherwise each file that runs beside others would
// look for Consul by itself, and be measured beside a compiler. What cannot be had is said by the tests that need it.

async function main(): Promise<void> {
  const say = (line: string) => console.error(line);
  await consulOf("local");
  for (const tool of ["consul-previous", "coredns", "promtool", "compose", "actionlint", "porcupine"] as const) {
    await buildTool(tool, say);
  }
  if (process.argv[2] !== "system") return;
  // Whoever runs the tests need not have every language.
  for (const example of examples) await buildExample(example, say).catch(complain);
}

function complain(error: unknown): void {
  console.error(error instanceof Error ? error.message : error);
}

main().catch(complain);
