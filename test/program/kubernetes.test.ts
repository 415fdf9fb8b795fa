import { deepEqual, equal, ok } from "assert/strict";
import { ProgramRun, Registered } from "../../local/program";
import { runFixture } from "../../local/fixtures";
import { edit } from "./edit";

const named = ({ resources }: ProgramRun, name: string): Registered => {
  const found = resources.find((resource) => resource.name === name);
  if (!found) throw new Error(`no resource ${name}`);
  return found;
};

interface Container {
  readonly env: { readonly name: string; readonly valueFrom?: object }[];
  readonly ports?: { readonly containerPort: number }[];
}
interface PodSpec {
  readonly containers: Container[];
  readonly volumes: { readonly hostPath?: { readonly path: string; readonly type?: string } }[];
}
const podOf = ({ inputs }: Registered) => (inputs as { spec: { template: { spec: PodSpec } } }).spec.template.spec;

describe("servers in the cluster", () => {
  it("are guarded by a Job that knows whether there may be a StatefulSet, by what was made before it", async () => {
    const made = await runFixture("dev");
    const [job, marker, servers] = ["consul-server-roll-job", "consul-server-marker", "consul-server"].map((name) =>
      named(made, name),
    );
    ok(job && marker && servers);
    // The marker is there before the StatefulSet and after the Job that stands before the StatefulSet.
    ok(marker.options.dependsOn.includes(job.urn));
    ok(servers.options.dependsOn.includes(marker.urn));
    const variable = podOf(job).containers[0]?.env.find(({ name }) => name === "SERVERS_EXIST");
    const { metadata, data } = marker.inputs as { metadata: { name: string }; data: Record<string, string> };
    deepEqual(variable?.valueFrom, {
      configMapKeyRef: { name: metadata.name, key: Object.keys(data)[0], optional: true },
    });
  });

  it("hold nothing up while gate.skip names one, and are waited for else", async () => {
    const waits = async (skip: readonly string[]) => {
      const made = await runFixture("dev", (config) => (config["consul:gate"] = JSON.stringify({ skip })));
      const { metadata } = named(made, "consul-server").inputs as { metadata: { annotations: object } };
      return !("pulumi.com/skipAwait" in metadata.annotations);
    };
    deepEqual([await waits([]), await waits(["consul-server-2"])], [true, false]);
  });

  it("are guarded by the same Job at an `up` that changes nothing", async () => {
    const job = async () => named(await runFixture("dev"), "consul-server-roll-job").inputs;
    deepEqual(await job(), await job());
    equal(named(await runFixture("dev"), "consul-server-marker").options.protect, false);
  });

  it("are open at 8503 where gRPC is switched on, by each pod's name too, and else not", async () => {
    for (const grpc of [true, false]) {
      const made = await runFixture("dev", (config) => {
        edit(config, "servers", (servers) => (servers.grpc = grpc));
      });
      const { spec } = named(made, "consul-server-headless").inputs as { spec: { ports: { port: number }[] } };
      const open = podOf(named(made, "consul-server")).containers[0]?.ports?.map((port) => port.containerPort);
      equal(
        spec.ports.some(({ port }) => port === 8503),
        grpc,
      );
      equal(open?.includes(8503), grpc);
    }
  });
});

describe("agents in the cluster", () => {
  it("are behind Services that stay on the caller's node and lead to agents that see no leader, too", async () => {
    const made = await runFixture("prod");
    for (const name of ["consul-agent-service", "consul-dns-service"]) {
      const { spec } = named(made, name).inputs as { spec: Record<string, unknown> };
      equal(spec.internalTrafficPolicy, "Local", name);
      equal(spec.publishNotReadyAddresses, true, name);
    }
  });

  it("need nothing of their node that the kubelet does not make", async () => {
    const { volumes } = podOf(named(await runFixture("prod"), "consul-agent"));
    deepEqual(
      volumes.flatMap(({ hostPath }) => (hostPath ? [hostPath] : [])),
      [{ path: "/var/lib/consul-agent", type: "DirectoryOrCreate" }],
    );
  });
});
