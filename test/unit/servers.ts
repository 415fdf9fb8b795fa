import { passes, Sample, Server } from "../../consul/quorum";

/** Three servers that are all well, as quorum.sh shows them; consul-3 leads. For tests to break. */
export const names = ["consul-1", "consul-2", "consul-3"];
export const leaderAddress = (name: string) => `10.0.0.${name.at(-1) ?? ""}:8300`;

type Mutable<T> = T extends (infer U)[] | readonly (infer U)[]
  ? Mutable<U>[]
  : T extends object
    ? { -readonly [K in keyof T]: Mutable<T[K]> }
    : T;
export type MutableSample = Mutable<Sample>;

/** One look by one server. */
export function sample(name: string, leader = "consul-3"): MutableSample {
  return {
    leader: leaderAddress(leader),
    health: {
      Servers: names.map((Name) => ({
        Name,
        SerfStatus: "alive",
        Version: "1.22.7",
        Healthy: true,
        Voter: true,
      })),
    },
    raft: {
      Servers: names.map((Node) => ({
        ID: `id-of-${Node}`,
        Node,
        Address: leaderAddress(Node),
        Leader: Node === leader,
        Voter: true,
        LastIndex: 100,
      })),
    },
    members: names.map((Name) => ({ Name, Status: 1 })),
    self: { state: name === leader ? "Leader" : "Follower", applied_index: "100" },
  };
}

export function samples(name: string, leader?: string): MutableSample[] {
  return Array.from({ length: passes.samples }, () => sample(name, leader));
}

/** All servers, well; `change` gets each look of each server, and may break it. */
export function wellServers(
  change: (look: MutableSample, name: string, n: number) => void = () => undefined,
): Server[] {
  return names.map((name) => {
    const looks = samples(name);
    looks.forEach((look, n) => change(look, name, n));
    return { name, machine: { id: `i-${name}`, status: "Running" }, view: { samples: looks } };
  });
}
