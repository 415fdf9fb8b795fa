import { execFileSync } from "child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { basename, dirname, join, resolve } from "path";
import { configOf, defineTask, interruption, showProgress } from "../local/command";
import { collect, Collected } from "./collect";
import { redact } from "./redact";
import { serversOf, WayOptions } from "./servers";
import { readStack, Stack, StackOptions } from "./stack";
import { oneStack, unanswered, wayFlags } from "./stack-task";

/** What is in the archive, as its first file says. */
function contents(stack: string, { texts, missing }: Collected, now: Date): string {
  return [
    `Consul, stack ${stack}, ${now.toISOString()}. Secrets were taken out: [secret].`,
    "",
    ...[...texts.keys()].sort(),
    ...(missing.length === 0 ? [] : ["", "Missing:", ...missing.map((what) => `- ${what}`)]),
    "",
  ].join("\n");
}

/** Secrets of a stack that this process knows: those in outputs and settings, and those of a cluster on this machine. */
function knownSecrets({ outputs, settings, directory }: Stack): string[] {
  const { gossipKeys, agentToken, managementToken } = outputs;
  const own = [...gossipKeys, agentToken, managementToken, settings.gossip.existingKey, settings.cluster?.kubeconfig];
  const state = directory === undefined ? "" : join(directory, "state.json");
  const made = existsSync(state) ? secretsIn(JSON.parse(readFileSync(state, "utf8"))) : [];
  return [...own.filter((secret) => secret !== undefined), ...made];
}

function secretsIn(value: unknown, key = ""): string[] {
  if (typeof value === "string") return /^(result|.*privateKeyPem.*)$/i.test(key) ? [value] : [];
  if (value === null || typeof value !== "object") return [];
  return Object.entries(value).flatMap(([name, entry]) => secretsIn(entry, name));
}

/** Writes texts into an archive, all of it or nothing. */
function archive(file: string, name: string, texts: ReadonlyMap<string, string>): void {
  const directory = mkdtempSync(join(tmpdir(), "consul-debug-"));
  const partial = `${file}.partial`;
  const remove = () => {
    rmSync(directory, { recursive: true, force: true });
    rmSync(partial, { force: true });
  };
  process.once("exit", remove);
  try {
    for (const [path, text] of texts) {
      const target = join(directory, name, path);
      mkdirSync(dirname(target), { recursive: true });
      writeFileSync(target, text);
    }
    writeFileSync(partial, "", { mode: 0o600 });
    execFileSync("tar", ["-czf", partial, "-C", directory, name], { stdio: ["ignore", "ignore", "pipe"] });
    renameSync(partial, file);
  } finally {
    remove();
    process.off("exit", remove);
  }
}

/**
 * Makes the archive. @returns what it holds, and where it is
 * @throws one line where nobody could be asked
 */
async function debug(given: string, output: string | undefined, options: StackOptions & WayOptions): Promise<string> {
  const now = new Date();
  const stack = await readStack(given, options);
  const time = now.toISOString().replace(/[-:]|\.\d+/g, "");
  const file = resolve(output ?? `consul-${stack.name}-${time}.tar.gz`);
  if (existsSync(file)) throw new Error(`${file} is there already: name another --output`);
  const reached = { ...stack, settings: withContext(stack.settings, options.context) };
  const collected = await collect(reached, serversOf(reached, options), showProgress);
  const listing = contents(stack.name, collected, now);
  const texts = redact(new Map([...collected.texts, ["contents.txt", listing]]), knownSecrets(stack));
  archive(file, basename(file).replace(/\.tar\.gz$|\.tgz$/, ""), texts);
  return `${texts.get("contents.txt") ?? ""}\n${file}\n`;
}

function withContext(settings: Stack["settings"], context: string | undefined): Stack["settings"] {
  if (!settings.cluster || context === undefined) return settings;
  return { ...settings, cluster: { ...settings.cluster, context } };
}

/** @param cloud another way to the machines than the ECS API, for tests */
export const debugTask = (cloud?: WayOptions["cloud"]) =>
  defineTask({
    name: "debug",
    usage: "-- STACK [OPTION…]",
    about: "logs and state of a deployment in one archive, for whoever looks into what went wrong",
    before: `The status, each server's journal, units, disk and what its Consul says of itself, pods and their logs. Secrets are taken
out, on the servers already. Nothing is changed, and nothing is left on a server. Look through the archive before you
send it: logs name hosts and addresses.`,
    after:
      "Exit status 0 where there is an archive, 2 where nobody could be asked, 130 after Ctrl-C, which leaves nothing.",
    flags: {
      output: {
        type: "string",
        short: "o",
        value: "FILE",
        about: "the archive; consul-STACK-TIME.tar.gz in this directory unless given",
      },
      ...wayFlags,
    },
    takesNames: true,
    run: async ({ flags: { output, config, ...ways }, names, write }) => {
      const name = oneStack(names, "debug");
      const work = debug(name, output, { ...ways, config: configOf(config), cloud }).catch(unanswered);
      // What is written before the end is removed when this process exits.
      const made = await Promise.race([interruption(), work]);
      if (made.startsWith("SIG")) return 130;
      write(made);
      return 0;
    },
  });

export const task = debugTask();
