import { FakeServers, MutableSample, wellLooks } from "../../components/ecs/fake-cloud";
import { readView } from "../../consul/machine/commands";
import { Server } from "../../consul/quorum";

/** Three healthy servers as quorum.sh prints them; consul-3 leads. Tests break them. */
export const names = ["consul-1", "consul-2", "consul-3"];
export const leaderAddress = (name: string) => `10.0.0.${name.at(-1) ?? ""}:8300`;
/** What servers that are well run. */
export const wellVersion = "1.22.3";
export const wellFakes = (leader = "consul-3"): FakeServers => ({ names, version: wellVersion, leader });

/** One look by one server. */
export function sample(name: string, leader?: string): MutableSample {
  const [look] = samples(name, leader);
  if (!look) throw new Error("there is no look");
  return look;
}

export function samples(name: string, leader?: string): MutableSample[] {
  return wellLooks(wellFakes(leader), name);
}

/** All servers, healthy. `change` gets each look of each server and may break the look. */
export function wellServers(
  change: (look: MutableSample, name: string, n: number) => void = () => undefined,
): Server[] {
  return names.map((name) => {
    const looks = samples(name);
    looks.forEach((look, n) => change(look, name, n));
    const view = readView(looks.map((look) => JSON.stringify(look)).join("\n"));
    return { name, machine: { id: `i-${name}`, status: "Running" }, view };
  });
}
