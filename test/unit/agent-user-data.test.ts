import { deepEqual, equal, match, ok, throws } from "assert/strict";
import { spawnSync } from "child_process";
import { renderAgentUserData } from "../../consul/machine/agent-user-data";
import { readableUserData, userDataLimit } from "../../consul/machine/user-data";
import { pinnedVersion } from "../../local/program";

const machine: Parameters<typeof renderAgentUserData>[0] = {
  config: {
    datacenter: "dc1",
    retryJoin: ["10.16.190.28", "10.16.190.40"],
    logLevel: "info",
    telemetryRetention: "360s",
    leaveOnStop: false,
    reconnectTimeout: "15m",
    registerMember: true,
    recursors: [],
    listen: [],
    extra: {},
  },
  ca: "-----BEGIN CERTIFICATE-----\nca\n-----END CERTIFICATE-----\n",
  secrets: {
    gossipKeys: ["Z29zc2lwIGtleSBvZiB0aGlzIHRlc3QsIDMyIGJ5dGU="],
    agentToken: "5eed0000-0000-4000-8000-0000000000a9",
  },
  version: pinnedVersion,
  downloadMirror: "https://mirror.example.com/consul",
  downloadSha256: "",
  dns: true,
};

describe("user data of machines with an agent", () => {
  const text = renderAgentUserData(machine);
  const readable = readableUserData(text);

  it("is a boothook and a shell script, well within what the cloud takes", () => {
    match(text, /^#cloud-boothook\n#!\/bin\/sh\n/);
    ok(Buffer.byteLength(text) < userDataLimit / 2);
    for (const shell of [text, readable]) equal(spawnSync("sh", ["-n"], { input: shell }).status, 0);
  });

  it("names no machine: name and address are found when the agent starts", () => {
    match(
      readable,
      /^ExecStart=.* -node=\$\{NODE_NAME\} -bind=\$\{HOST_IP\} .* "-client=\$\{HOST_IP\} 127\.0\.0\.1"$/m,
    );
    match(readable, /^ExecStartPre=\+\/usr\/local\/lib\/consul\/place\.sh 10\.16\.190\.28$/m);
  });

  it("keeps secrets in files that the agent alone reads, and out of commands", () => {
    const [files, rest] = readable.split("# In the text that the machine gets, what follows is packed.\n");
    for (const secret of [machine.secrets.agentToken, machine.secrets.gossipKeys[0] ?? ""]) {
      ok(files?.includes(secret));
      ok(!rest?.includes(secret));
    }
    deepEqual(
      [...(files ?? "").matchAll(/^put (\S+ \d+ \w+)/gm)].map(([, put]) => put),
      ["/etc/consul.d/secrets.json 0640 consul", "/etc/consul.d/gossip.keyring 0640 consul"],
    );
  });

  it("has names below .consul for the machine's programs by choice", () => {
    match(readable, /^DNS=127\.0\.0\.1:8600\nDomains=~consul$/m);
    ok(!readableUserData(renderAgentUserData({ ...machine, dns: false })).includes("[Resolve]"));
  });

  it("is refused where servers have names in a cluster", () => {
    const retryJoin = ["consul-server-0.consul-server.consul.svc"];
    throws(
      () => renderAgentUserData({ ...machine, config: { ...machine.config, retryJoin } }),
      /consul:machines: machines need servers with addresses, on ECS; these are names in the cluster: consul-server-0/,
    );
  });
});
