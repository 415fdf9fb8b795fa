import * as provider from "@pulumi/pulumi/provider";
import { randomBytes } from "crypto";
import { setTimeout as sleep } from "timers/promises";
import { plain } from "../../local/marks";
import { changeRegion, readRegion } from "./region";

// Stands in for the plugin alicloud on the level engine: everything can be made, and machines stand in a region that is
// a file. It takes its time after a machine was made, so that an `up` can be killed in between.

const file = process.env.REGION_FILE ?? "";
const instance = "alicloud:ecs/instance:Instance";
const attachment = "alicloud:ecs/ecsDiskAttachment:EcsDiskAttachment";

/** Inputs that a resource cannot change (docs/facts/cloud.md has those of machines); every one where it is listed alone. */
const fixed: Readonly<Record<string, readonly string[]>> = {
  [instance]: ["availabilityZone", "systemDiskCategory"],
  "alicloud:ecs/ecsDisk:EcsDisk": ["zoneId", "kmsKeyId"],
  "alicloud:ecs/securityGroupRule:SecurityGroupRule": ["*"],
  [attachment]: ["*"],
};
/** Inputs for which the provider stops a machine. */
const stopping = ["userData", "instanceType", "imageId", "hostName", "privateIp"];

type Inputs = Readonly<Record<string, unknown>>;

interface InstanceInputs {
  readonly instanceName: string;
  readonly privateIp: string;
  readonly tags: Record<string, string>;
}

const typeOf = (urn: string) => urn.split("::")[2]?.split("$").at(-1) ?? "";

function changed(olds: unknown, news: unknown): string[] {
  const [before, after] = [plain(olds) as Inputs, plain(news) as Inputs];
  return Object.keys(after).filter((key) => JSON.stringify(before[key]) !== JSON.stringify(after[key]));
}

class RegionProvider implements provider.Provider {
  readonly version = "3.108.0";

  check(_: string, __: unknown, news: unknown) {
    return Promise.resolve({ inputs: plain(news) });
  }

  diff(_: string, urn: string, olds: unknown, news: unknown) {
    const own = fixed[typeOf(urn)] ?? [];
    const keys = changed(olds, news);
    const replaces = keys.filter((key) => own.includes("*") || own.includes(key));
    return Promise.resolve({ changes: keys.length > 0, replaces, deleteBeforeReplace: false });
  }

  async create(urn: string, news: unknown) {
    const type = typeOf(urn);
    const inputs = plain(news) as Inputs;
    const id = `${type === instance ? "i" : "x"}-${randomBytes(6).toString("hex")}`;
    if (type === instance) await runInstance(id, inputs as unknown as InstanceInputs);
    if (type === attachment) {
      const { diskId, instanceId } = inputs as { diskId: string; instanceId: string };
      changeRegion(file, ({ machines }) => machines[instanceId]?.disks.push(diskId));
    }
    return { id, outs: { ...inputs, arn: `acs:ram::1234567890123456:role/${id}` } };
  }

  read(id: string, urn: string, props: unknown) {
    const gone = typeOf(urn) === instance && !(id in readRegion(file).machines);
    return Promise.resolve(gone ? { id: "", props: {} } : { id, props });
  }

  update(id: string, _: string, olds: unknown, news: unknown) {
    const inputs = plain(news) as Inputs;
    changeRegion(file, ({ machines, log }) => {
      const machine = machines[id];
      if (!machine) return;
      const keys = changed(olds, news);
      log.push(`${machine.name}: the provider changes ${keys.join(", ")}`);
      if (keys.some((key) => stopping.includes(key))) log.push(`${machine.name}: the provider stops and starts it`);
      machine.tags = (inputs as unknown as InstanceInputs).tags;
    });
    return Promise.resolve({ outs: { ...(plain(olds) as Inputs), ...inputs } });
  }

  delete(id: string) {
    changeRegion(file, ({ machines, log }) => {
      if (machines[id]) log.push(`${machines[id].name}: deleted`);
      Reflect.deleteProperty(machines, id);
    });
    return Promise.resolve();
  }
}

async function runInstance(id: string, { instanceName: name, privateIp: address, tags }: InstanceInputs) {
  changeRegion(file, ({ machines, log }) => {
    if (Object.values(machines).some((machine) => machine.address === address)) {
      throw new Error(
        "ErrorCode: InvalidIPAddress.AlreadyUsed: The specified IPAddress is already used by other resource.",
      );
    }
    const [runs, version] = [tags["consul-config"] ?? "", tags["consul-version"] ?? ""];
    machines[id] = { name, address, status: "Running", tags, runs, version, disks: [] };
    log.push(`${name}: made`);
  });
  await sleep(1000);
}

void provider.main(new RegionProvider(), process.argv.slice(2));
