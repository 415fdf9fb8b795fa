import type Ecs from "@alicloud/ecs20140526";
import { readFileSync } from "fs";
import { setTimeout as sleep } from "timers/promises";
import { CloudConfig } from "../../settings";

/** A machine of the cloud, as far as the servers' gate wants to know. */
export interface Machine {
  readonly id: string;
  readonly name: string;
  /** Running, Stopped, Starting, Stopping or Pending. */
  readonly status: string;
}

/** What came of a command on one machine. */
export type Outcome = { readonly output: string } | { readonly problem: string };

/** The way to the servers' machines, for a place that has no way into their network. */
export interface Cloud {
  /** The machines of a VPC that carry a tag. */
  machines(vpcId: string, tag: { readonly key: string; readonly value: string }): Promise<Machine[]>;
  /** Runs a command as root on each machine. What fails on one of them is its outcome and no error. */
  run(ids: readonly string[], command: string): Promise<Map<string, Outcome>>;
}

/**
 * How the cloud is reached. Replaced by tests; undefined where there is none to reach, as under Pulumi's test monitor
 * (local/program.ts): the servers are then taken to be well.
 */
export const cloud: { connect: ((config: CloudConfig) => Cloud) | undefined } = { connect: connectToEcs };

/** An answer of the cloud that trying again does not change: no permission, wrong credentials. */
export class RefusedError extends Error {}

/** Actions that the credentials of `pulumi up` need for the gate. */
const actions =
  "ecs:DescribeInstances, ecs:DescribeCloudAssistantStatus, ecs:RunCommand, ecs:DescribeInvocationResults";

/** Seconds a command may take on a machine, and how long its result is waited for beyond that. */
const commandSeconds = 120;
const deliverySeconds = 30;

/** The ECS API, with the endpoint and credentials that the alicloud provider takes from the same places. */
export function connectToEcs(config: CloudConfig): Cloud {
  // Loaded here and not above: it takes most of a second, and only an update of a server or its last check needs it.
  const ecs = require("@alicloud/ecs20140526") as typeof import("@alicloud/ecs20140526");
  const { $OpenApiUtil } = require("@alicloud/openapi-core") as typeof import("@alicloud/openapi-core");
  const regionId = config.region;
  const ca = process.env.SSL_CERT_FILE;
  const client: Ecs = new ecs.default(
    new $OpenApiUtil.Config({
      regionId,
      ...credentials(config),
      endpoint: config.endpoint,
      // The form of request that the provider sends: one simulated or proxied API serves both.
      signatureAlgorithm: "v2",
      // Go, and so the provider, heeds this variable; Node does not.
      ca: ca === undefined ? undefined : readFileSync(ca, "utf8"),
      connectTimeout: 10_000,
      readTimeout: 30_000,
    }),
  );

  return { machines, run };

  async function machines(vpcId: string, tag: { key: string; value: string }): Promise<Machine[]> {
    const request = new ecs.DescribeInstancesRequest({ regionId, vpcId, tag: [tag], maxResults: 100 });
    const { body } = await insist(() => client.describeInstances(request));
    return (body?.instances?.instance ?? []).map(({ instanceId = "", instanceName = "", status = "" }) => ({
      id: instanceId,
      name: instanceName,
      status,
    }));
  }

  async function run(ids: readonly string[], command: string): Promise<Map<string, Outcome>> {
    const outcomes = new Map<string, Outcome>();
    // "Running" says nothing of the machine's system: what is sent before its agent is there comes back as failed.
    const status = new ecs.DescribeCloudAssistantStatusRequest({ regionId, instanceId: [...ids] });
    const { body } = await insist(() => client.describeCloudAssistantStatus(status));
    const known = body?.instanceCloudAssistantStatusSet?.instanceCloudAssistantStatus ?? [];
    const ready = ids.filter((id) => known.some((s) => s.instanceId === id && s.cloudAssistantStatus === "true"));
    for (const id of ids) if (!ready.includes(id)) outcomes.set(id, { problem: "its Cloud Assistant is not there" });
    if (ready.length === 0) return outcomes;

    const request = new ecs.RunCommandRequest({
      regionId,
      type: "RunShellScript",
      name: "consul-pulumi",
      commandContent: Buffer.from(command).toString("base64"),
      contentEncoding: "Base64",
      instanceId: ready,
      timeout: commandSeconds,
    });
    const sent = await insist(() => client.runCommand(request));
    const results = new ecs.DescribeInvocationResultsRequest({
      regionId,
      invokeId: sent.body?.invokeId,
      contentEncoding: "Base64",
      maxResults: 50,
    });
    const deadline = Date.now() + (commandSeconds + deliverySeconds) * 1000;
    for (;;) {
      await sleep(1000);
      const { body } = await insist(() => client.describeInvocationResults(results));
      for (const result of body?.invocation?.invocationResults?.invocationResult ?? []) {
        const outcome = outcomeOf(result.invocationStatus, result.exitCode, result);
        if (result.instanceId !== undefined && outcome) outcomes.set(result.instanceId, outcome);
      }
      const missing = ready.filter((id) => !outcomes.has(id));
      if (missing.length === 0) return outcomes;
      if (Date.now() > deadline) for (const id of missing) outcomes.set(id, { problem: "its answer did not come" });
    }
  }
}

/** The outcome of an invocation that has ended; undefined while it goes on. */
function outcomeOf(
  status: string | undefined,
  exitCode: number | undefined,
  { output = "", errorCode = "", errorInfo = "" }: { output?: string; errorCode?: string; errorInfo?: string },
): Outcome | undefined {
  if (["Pending", "Running", "Scheduled", "Stopping", undefined].includes(status)) return undefined;
  const text = Buffer.from(output, "base64").toString();
  if (status === "Success") return { output: text };
  const said = [errorCode, errorInfo, text.trim().split("\n").at(-1)].filter(Boolean).join(", ");
  return { problem: `the command ended as ${status ?? ""}${exitCode ? ` (${exitCode})` : ""}: ${said}` };
}

/** What the SDK throws where the API, or the way to it, fails. */
interface Failure {
  readonly code?: string;
  readonly statusCode?: number;
  readonly message: string;
}

/** Tries again, ever later, what was throttled or did not come through. */
async function insist<T>(call: () => Promise<T>, tries = 7): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      const { code = "", statusCode, message } = error as Failure;
      const passing = code.includes("Throttling") || statusCode === undefined || statusCode >= 500;
      if (statusCode === 401 || statusCode === 403 || /AccessKey|Signature|SecurityToken|Credentials/.test(code)) {
        throw new RefusedError(`the cloud refuses: ${code}, ${message}; the credentials need ${actions}`);
      }
      if (!passing || attempt === tries) throw new Error(`the ECS API fails: ${code} ${message}`, { cause: error });
    }
    await sleep(Math.min(500 * 2 ** attempt, 15_000) * (0.5 + Math.random() / 2));
  }
}

/** Credentials as the provider finds them: its configuration, the environment, then profile, role or URI. */
function credentials(config: CloudConfig): object {
  const { accessKey, secretKey, securityToken, assumeRole } = config;
  if (accessKey !== undefined && secretKey !== undefined && assumeRole === undefined) {
    return { accessKeyId: accessKey, accessKeySecret: secretKey, securityToken };
  }
  const { default: Credential, Config } = require("@alicloud/credentials") as typeof import("@alicloud/credentials");
  if (assumeRole === undefined) return { credential: new Credential() };
  return {
    credential: new Credential(
      new Config({
        type: "ram_role_arn",
        accessKeyId: accessKey,
        accessKeySecret: secretKey,
        securityToken,
        roleArn: assumeRole.roleArn,
        roleSessionName: assumeRole.sessionName ?? "consul-pulumi",
      }),
    ),
  };
}
