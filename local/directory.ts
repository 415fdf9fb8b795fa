import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "fs";
import { dirname, join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { localLayout } from "../components/local/nodes";
import type { AclObject } from "../consul/acl";
import { keyringPaths } from "../consul/gossip";
import { ConsulNode, stableJson } from "../consul/node";
import { identity, ProcessId } from "./processes";

/** The processes that run in a directory: the next supervisor there looks whether any of them is left. */
interface RunFile {
  readonly supervisor: ProcessId;
  readonly nodes: Readonly<Record<string, ProcessId>>;
}

/**
 * The nodes whose processes run in a cluster's directory, by name.
 * @returns undefined where no supervisor runs there
 */
export function nodesRunningIn(path: string): ReadonlySet<string> | undefined {
  const file = join(path, "run.json");
  if (!existsSync(file)) return undefined;
  const { supervisor, nodes } = JSON.parse(readFileSync(file, "utf8")) as RunFile;
  if (!lives(supervisor)) return undefined;
  return new Set(Object.entries(nodes).flatMap(([name, id]) => (lives(id) ? [name] : [])));
}

const lives = ({ pid, identity: known }: ProcessId) => identity(pid) === known;

/** The directory of one cluster: keys, files, data and logs, and a note of the processes that run in it. */
export class RunDirectory {
  readonly stateFile: string;
  /** Has the management token; mode 0600. */
  readonly tokenFile: string;
  readonly caFile: string;
  private readonly aclDirectory: string;
  private readonly runFile: string;
  private claimed = false;

  constructor(readonly path: string) {
    this.stateFile = join(path, "state.json");
    this.tokenFile = join(path, "management-token");
    this.caFile = join(path, "ca.pem");
    this.aclDirectory = join(path, "acl-objects");
    this.runFile = join(path, "run.json");
  }

  logFile(node: string): string {
    return join(this.path, node, "consul.log");
  }

  /**
   * Makes the directory this process's own, and ends nodes that are left of a supervisor which was killed.
   * @returns how many there were
   * @throws where another supervisor runs in it
   */
  async claim(): Promise<number> {
    mkdirSync(this.path, { recursive: true, mode: 0o700 });
    const left = existsSync(this.runFile) ? (JSON.parse(readFileSync(this.runFile, "utf8")) as RunFile) : undefined;
    if (left && lives(left.supervisor)) {
      throw new Error(
        `a cluster runs in ${this.path} already (process ${left.supervisor.pid}): end that one, or use --dir`,
      );
    }
    this.claimed = true;
    const orphans = Object.values(left?.nodes ?? {}).filter(lives);
    for (const { pid } of orphans) process.kill(pid, "SIGKILL");
    while (orphans.some(lives)) await sleep(20);
    this.note({});
    return orphans.length;
  }

  /** Notes which processes run for whoever comes after this one. */
  note(nodes: Readonly<Record<string, ProcessId>>): void {
    if (!this.claimed) return;
    const content: RunFile = { supervisor: { pid: process.pid, identity: identity(process.pid) ?? "" }, nodes };
    writeFileSync(this.runFile, stableJson(content), { mode: 0o600 });
  }

  /** Gives the directory up: nothing runs in it any more. */
  release(): void {
    if (this.claimed) rmSync(this.runFile, { force: true });
    this.claimed = false;
  }

  /** Deletes what starts in this directory have made, and nothing else that may be in it. */
  forget(): void {
    for (const path of [this.stateFile, this.tokenFile, this.caFile, this.aclDirectory]) {
      rmSync(path, { recursive: true, force: true });
    }
    for (const name of readdirSync(this.path)) {
      if (existsSync(join(this.path, name, "keys"))) rmSync(join(this.path, name), { recursive: true });
    }
  }

  /**
   * Writes the files of a node in place of those that it had.
   * @param keys names the keys in them
   * @throws where the node's data was written with other keys
   */
  write(node: ConsulNode, keys: string): void {
    const data = join(this.path, node.name, "data");
    const keysFile = join(this.path, node.name, "keys");
    const before = existsSync(keysFile) ? readFileSync(keysFile, "utf8") : undefined;
    // Data without a note of its keys is somebody's own, such as that of a hand-made agent which is taken over.
    if (before !== undefined && before !== keys && existsSync(data) && readdirSync(data).length > 0) {
      throw new Error(
        `${data} was written with other keys than those in ${this.stateFile}: ` +
          "put that file back as it was, or forget keys and data with npm start -- --reset",
      );
    }
    for (const directory of new Set(node.files.map(({ path }) => dirname(join(this.path, path))))) {
      rmSync(directory, { recursive: true, force: true });
      mkdirSync(directory, { recursive: true, mode: 0o700 });
    }
    writeFileSync(keysFile, keys);
    for (const { path, mode, content } of node.files) {
      writeFileSync(join(this.path, path), content, { mode: 0o600 });
      chmodSync(join(this.path, path), parseInt(mode, 8));
    }
  }

  /** Puts the keys that a node is given in the place of those that it remembers; before each start. */
  installKeyring({ name, files }: ConsulNode): void {
    const { given, own } = keyringPaths(localLayout(name));
    const keyring = files.find(({ path }) => path === given);
    if (keyring === undefined) return; // a node of another program's making
    mkdirSync(dirname(join(this.path, own)), { recursive: true, mode: 0o700 });
    writeFileSync(join(this.path, own), keyring.content, { mode: 0o600 });
  }

  /** Writes policies and tokens in place of those of last time; for this user alone, since tokens are secret. @returns where */
  writeAcl(objects: readonly AclObject[]): string {
    rmSync(this.aclDirectory, { recursive: true, force: true });
    mkdirSync(this.aclDirectory, { mode: 0o700 });
    for (const { file, content } of objects) writeFileSync(join(this.aclDirectory, file), content, { mode: 0o600 });
    return this.aclDirectory;
  }

  /** Deletes a node's data, files and log. */
  wipe(node: string): void {
    rmSync(join(this.path, node), { recursive: true, force: true });
  }
}
