import { execFileSync } from "child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { basename, dirname, join, resolve } from "path";
import { parseArgs } from "util";
import { configOf, interruption, runCommand } from "../local/command";
import { collect, Collected } from "./collect";
import { redact } from "./redact";
import { serversOf, WayOptions } from "./servers";
import { readStack, Stack, StackOptions } from "./stack";

const usage = `npm run debug -- STACK [OPTION…]

Logs and state of a deployment in one archive, for whoever looks into what went wrong: the status, each server's journal,
units, disk and what its Consul says of itself, pods and their logs. Secrets are taken out, on the servers already. Nothing
is changed, and nothing is left on a server. Look through the archive before you send it: logs name hosts and addresses.

  --output FILE         the archive; consul-STACK-TIME.tar.gz in this directory unless given
  --context NAME        the kubectl context of the cluster
  --dir DIRECTORY       directory of a cluster of npm start, as there
  --config KEY=VALUE    a setting of a cluster of npm start, as there
  --help                show this
Exit code: 0 where there is an archive, 2 where nobody could be asked, 130 after Ctrl-C, which leaves nothing.
`;

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

/** Writes texts into an archive, all of it or nothing. @returns what undoes it while it is not whole */
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
 * @param write takes what the archive holds
 * @param say takes progress, and why there is no archive
 * @param cloud another way to the machines than the ECS API, for tests
 * @returns the exit code
 */
export async function main(
  args: string[],
  write: (text: string) => void,
  say: (text: string) => void,
  cloud?: WayOptions["cloud"],
): Promise<number> {
  try {
    const { values, positionals } = parseArgs({
      args,
      options: {
        output: { type: "string", short: "o" },
        context: { type: "string" },
        dir: { type: "string" },
        config: { type: "string", short: "c", multiple: true, default: [] },
        help: { type: "boolean", short: "h" },
      },
      allowPositionals: true,
    });
    if (values.help) {
      write(usage);
      return 0;
    }
    const [given, ...rest] = positionals;
    if (given === undefined || rest.length > 0) throw new Error("one stack is needed, such as: npm run debug -- prod");
    const options: StackOptions & WayOptions = { ...values, config: configOf(values.config), cloud };
    const now = new Date();
    const stack = await readStack(given, options);
    const time = now.toISOString().replace(/[-:]|\.\d+/g, "");
    const file = resolve(values.output ?? `consul-${stack.name}-${time}.tar.gz`);
    if (existsSync(file)) throw new Error(`${file} is there already: name another --output`);
    const context = values.context ?? stack.settings.cluster?.context;
    const reached = { ...stack, settings: withContext(stack.settings, context) };
    const collected = await collect(reached, serversOf(reached, options), (what) => say(`+ ${what}\n`));
    const listing = contents(stack.name, collected, now);
    const texts = redact(new Map([...collected.texts, ["contents.txt", listing]]), knownSecrets(stack));
    archive(file, basename(file).replace(/\.tar\.gz$|\.tgz$/, ""), texts);
    write(`${texts.get("contents.txt") ?? ""}\n${file}\n`);
    return 0;
  } catch (error) {
    say(`debug: ${(error as Error).message}\n`);
    return 2;
  }
}

function withContext(settings: Stack["settings"], context: string | undefined): Stack["settings"] {
  if (!settings.cluster || context === undefined) return settings;
  return { ...settings, cluster: { ...settings.cluster, context } };
}

if (require.main === module) {
  const { stdout, stderr } = process;
  const write = (text: string) => void stdout.write(text);
  const say = (text: string) => void stderr.write(text);
  // What is written before the end is removed when this process exits.
  runCommand("debug", (args) => Promise.race([interruption().then(() => 130), main(args, write, say)]));
}
