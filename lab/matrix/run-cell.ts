import { interruption } from "../../local/command";
import type { Cluster } from "../../local/supervisor";
import { runCell } from "./cell";

// One cell in a process of its own, for lab/matrix/matrix.ts: OPERATION FAULT DIRECTORY PREFIX. The program runs once at a
// time in one process, and a fault of the network or of a disk belongs to this process's namespaces. Prints the cell as
// JSON, progress on standard error.

async function main([operation = "", fault = "", dir = "", prefix = ""]: string[]): Promise<number> {
  const clusters: Cluster[] = [];
  const interrupted = interruption();
  const work = runCell(
    { operation, fault },
    dir,
    prefix,
    (line) => console.error(line),
    (cluster) => clusters.push(cluster),
  );
  try {
    const outcome = await Promise.race([interrupted, work]);
    if (typeof outcome === "string") return 130;
    console.log(JSON.stringify(outcome));
    return 0;
  } finally {
    for (const cluster of clusters) await cluster.stop();
  }
}

// What an output of Pulumi fails with is told by the output itself; other promises of the output fail unheard.
process.on("unhandledRejection", () => undefined);
main(process.argv.slice(2)).then(
  (status) => process.stdout.write("", () => process.exit(status)),
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  },
);
