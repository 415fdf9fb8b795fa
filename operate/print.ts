import { styleText } from "util";
import { aligned } from "../local/command";
import type { Runout, ServerStatus, SnapshotStatus, Status } from "./judge";

type Style = "green" | "red" | "bold";

/**
 * A status as text for people: the verdict first and last, since a long text scrolls.
 * @param colours whether the text has colours
 */
export function print(status: Status, colours = false): string {
  const paint = (style: Style, text: string) => (colours ? styleText(style, text, { validateStream: false }) : text);
  const { problems, servers, keys, snapshots, stack, datacenter } = status;
  const wrong = problems.length === 1 ? "1 thing is wrong" : `${problems.length} things are wrong`;
  const verdict = `${stack} (datacenter ${datacenter}): ${status.ok ? "all is well" : `NOT WELL, ${wrong}`}`;
  const painted = paint(status.ok ? "green" : "red", verdict);
  const heading = (text: string) => ["", paint("bold", text)];
  const kept = servers.filter((server) => runs(server) && !server.mayGoDown.ok);
  return [
    painted,
    ...heading("Servers"),
    ...aligned([
      ["NAME", "MACHINE", "STATE", "ROLE", "VERSION", "CERTIFICATE", "DISK FREE", "MAY GO DOWN"],
      ...servers.map(serverRow),
    ]),
    ...kept.map(({ name, mayGoDown }) => `${name} may not go down: ${mayGoDown.reasons.join("; ")}`),
    "",
    ...aligned([
      ["Leader", status.leader ?? "none"],
      ["Voters", votersText(status)],
      ["Agents", agentsText(status.agents)],
      ["Snapshot", snapshotText(snapshots)],
      ...keys.map((key) => [sentence(key.what), runoutText(key)]),
    ]),
    ...(problems.length === 0 ? [] : [...heading("Wrong"), ...problems.map((problem) => `- ${problem}`)]),
    "",
    painted,
    "",
  ].join("\n");
}

function serverRow({ name, id, state, role, version, certificate, diskFree, mayGoDown }: ServerStatus): string[] {
  return [
    name,
    id,
    state,
    role,
    version ?? "?",
    certificate ? `${certificate.daysLeft} days` : "?",
    diskFree === undefined ? "?" : `${Math.round(diskFree * 100)} %`,
    state !== running ? "is down" : mayGoDown.ok ? "yes" : "no",
  ];
}

const running = "Running";
const runs = ({ state }: ServerStatus) => state === running;

function votersText({ voters, servers }: Status): string {
  const down = servers.filter((server) => !runs(server) && ["leader", "voter"].includes(server.role)).length;
  return `${voters} of ${servers.length}${down === 0 ? "" : `, ${down} of them down`}`;
}

function agentsText(agents: Status["agents"]): string {
  if ("problem" in agents) return "nobody says";
  const { members, failed, otherVersion, earlierTrust } = agents;
  const behind = new Set([...otherVersion.map(({ name }) => name), ...earlierTrust]);
  return `${members}, ${failed.length} do not answer, ${behind.size} behind`;
}

function snapshotText(snapshots: SnapshotStatus | undefined): string {
  if (!snapshots) return "not asked for (consul:backups)";
  const { last, ageHours, bytes, copy } = snapshots;
  if (last === undefined) return "none yet";
  const size = bytes === undefined ? "" : `, ${Math.ceil(bytes / 1024)} KiB`;
  return `${last}, ${ageHours ?? "?"} hours ago${size}, ${copy === undefined ? "no copy is asked for" : `with its copy in ${copy}`}`;
}

function runoutText({ daysLeft, expires }: Runout): string {
  return `${daysLeft} days left (${expires.slice(0, 10)})`;
}

function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
