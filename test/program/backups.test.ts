import { deepEqual, equal, ok } from "assert/strict";
import { execFile } from "child_process";
import { generateKeyPairSync, KeyObject, sign } from "crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";
import { runFixture } from "../../local/fixtures";
import { ProgramRun, Registered } from "../../local/program";
import { FakeStorage, RamDocument } from "../fake-storage";

/** The parts of the pod that takes snapshots which say who it is and how it gets a role. */
interface SnapshotPod {
  readonly serviceAccountName: string;
  readonly automountServiceAccountToken: boolean;
  readonly containers: readonly [
    {
      readonly command: readonly string[];
      readonly env: readonly { readonly name: string; readonly value: string }[];
      readonly volumeMounts: readonly {
        readonly name: string;
        readonly mountPath: string;
        readonly readOnly?: boolean;
      }[];
    },
  ];
  readonly volumes: readonly {
    readonly name: string;
    readonly projected?: {
      readonly sources: readonly [
        { readonly serviceAccountToken: { readonly audience: string; readonly path: string } },
      ];
    };
  }[];
}

const named = ({ resources }: ProgramRun, name: string): Registered => {
  const found = resources.find((resource) => resource.name === name);
  ok(found, name);
  return found;
};
const document = (text: unknown) => JSON.parse(String(text)) as RamDocument;

/** A token as the API server of a cluster makes it for a pod of this service account. */
function tokenOf(account: string, namespace: string, audience: string, issuer: string, key: KeyObject): string {
  const claims = {
    iss: issuer,
    sub: `system:serviceaccount:${namespace}:${account}`,
    aud: [audience],
    exp: Math.floor(Date.now() / 1000) + 3600,
  };
  const text = [{ alg: "RS256" }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"));
  return [...text, sign("sha256", Buffer.from(text.join(".")), key).toString("base64url")].join(".");
}

describe("copies of snapshots of servers in the cluster", () => {
  const provider = "acs:ram::1234567890123456:oidc-provider/ack-rrsa-c3333333333333333333333333333333";
  const issuer = "https://oidc-ack-ap-southeast-1.oss-ap-southeast-1.aliyuncs.com/c3333333333333333333333333333333";
  let made: ProgramRun;
  let pod: SnapshotPod;

  before(async () => {
    made = await runFixture("dev");
    const { spec } = named(made, "consul-snapshots").inputs as {
      spec: { jobTemplate: { spec: { template: { spec: SnapshotPod } } } };
    };
    pod = spec.jobTemplate.spec.template.spec;
  });

  it("have a bucket like that of machines, and a role for one service account", () => {
    const { inputs, options } = named(made, "consul-backups");
    equal(inputs.bucket, "example-consul-dev");
    deepEqual(inputs.versioning, { status: "Enabled" });
    ok(!options.protect);
    equal(named(made, "consul-backups-private").inputs.blockPublicAccess, true);
    const role = named(made, "consul-backups-role").inputs;
    deepEqual(document(role.assumeRolePolicyDocument).Statement, [
      {
        Action: "sts:AssumeRole",
        Effect: "Allow",
        Principal: { Federated: [provider] },
        Condition: {
          StringEquals: {
            "oidc:aud": "sts.aliyuncs.com",
            "oidc:iss": issuer,
            "oidc:sub": "system:serviceaccount:consul:consul-snapshot",
          },
        },
      },
    ]);
    equal(named(made, "consul-backups-put-attachment").inputs.roleName, role.roleName);
    const account = named(made, "consul-snapshots-account").inputs;
    deepEqual(account.metadata, {
      name: "consul-snapshot",
      namespace: "consul",
      labels: { "app.kubernetes.io/name": "consul", "app.kubernetes.io/component": "snapshots" },
    });
    equal(account.automountServiceAccountToken, false);
    deepEqual([pod.serviceAccountName, pod.automountServiceAccountToken], ["consul-snapshot", false]);
  });

  it("need no way to the internet", () => {
    const value = (name: string) => pod.containers[0].env.find((one) => one.name === name)?.value;
    equal(value("ALIBABA_CLOUD_STS_ENDPOINT"), "sts-vpc.ap-southeast-1.aliyuncs.com");
    equal(value("OSS_ENDPOINT"), "example-consul-dev.s3.oss-ap-southeast-1-internal.aliyuncs.com");
    equal(value("OSS_REGION"), "ap-southeast-1");
  });

  it("arrive by what the pod has: its scripts, its variables and the token of its service account", async () => {
    const directory = mkdtempSync(join(tmpdir(), "backups-"));
    const key = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const cloud = await FakeStorage.start({
      role: {
        arn: "acs:ram::1234567890123456:role/consul-dc1-snapshot-pod",
        trust: document(named(made, "consul-backups-role").inputs.assumeRolePolicyDocument),
        policy: document(named(made, "consul-backups-put").inputs.policyDocument),
      },
      provider: { arn: provider, issuer, key: key.publicKey },
      bucket: "example-consul-dev",
      region: "ap-southeast-1",
    });
    try {
      const [container] = pod.containers;
      // The volumes of the pod, in a directory instead of its root.
      const volume = pod.volumes.find(({ projected }) => projected !== undefined);
      const { audience, path } = volume?.projected?.sources[0].serviceAccountToken ?? { audience: "", path: "" };
      const mount = container.volumeMounts.find(({ name }) => name === volume?.name);
      equal(mount?.readOnly, true);
      const tokenFile = join(directory, mount.mountPath, path);
      mkdirSync(join(directory, mount.mountPath), { recursive: true });
      writeFileSync(tokenFile, tokenOf(pod.serviceAccountName, "consul", audience, issuer, key.privateKey));
      const config = join(directory, "consul/config");
      mkdirSync(config, { recursive: true });
      const { data } = named(made, "consul-snapshots-config").inputs as { data: Record<string, string> };
      for (const [file, text] of Object.entries(data)) writeFileSync(join(config, file), text);
      writeFileSync(join(directory, "cloud.pem"), cloud.caCertificate);
      // The commands that ask Consul itself: what snapshot.sh does with them is proven on a real cluster.
      const consul = `#!/bin/sh
case "$1 $2" in
  "snapshot save") echo "a snapshot" >"$3" ;;
  "snapshot inspect") echo "Index 42" ;;
  "kv put") cat >"${directory}/metrics" ;;
esac
`;
      mkdirSync(join(directory, "bin"));
      writeFileSync(join(directory, "bin/consul"), consul, { mode: 0o755 });

      const env = Object.fromEntries(container.env.map(({ name, value }) => [name, value]));
      equal(env.ALIBABA_CLOUD_OIDC_TOKEN_FILE, `${mount.mountPath}/${path}`);
      const [shell = "", ...args] = container.command.map((word) =>
        word.replace(/^\/consul\//, `${directory}/consul/`),
      );
      const ran = await new Promise<string>((done) => {
        const options = {
          env: {
            ...env,
            PATH: `${directory}/bin:${process.env.PATH ?? ""}`,
            ALIBABA_CLOUD_OIDC_TOKEN_FILE: tokenFile,
            ALIBABA_CLOUD_STS_ENDPOINT: cloud.host,
            OSS_ENDPOINT: cloud.host,
            CURL_CA_BUNDLE: join(directory, "cloud.pem"),
          },
        };
        execFile(shell, args, options, (_, stdout, stderr) => done(stdout + stderr));
      });
      ok(/^consul-snapshot: \S+\.snap, raft index 42, and a copy in example-consul-dev\/dev\/\n$/.test(ran), ran);
      const [[name, content] = ["", Buffer.alloc(0)]] = cloud.stored;
      ok(/^dev\/\d{8}T\d{6}Z-\S+\.snap$/.test(name), name);
      equal(content.toString(), "a snapshot\n");
    } finally {
      cloud.stop();
      rmSync(directory, { recursive: true });
    }
  });

  it("are not asked for without a bucket, and nothing of the cloud is made then", async () => {
    const without = await runFixture("dev", (config) => {
      config["consul:backups"] = JSON.stringify({ keep: 2 });
      Reflect.deleteProperty(config, "alicloud:region");
    });
    deepEqual(
      without.resources.filter(({ type, name }) => type.startsWith("alicloud:") || name === "consul-snapshots-account"),
      [],
    );
    ok(!JSON.stringify(named(without, "consul-snapshots").inputs).includes("ALIBABA"));
  });
});
