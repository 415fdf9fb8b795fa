import type Ecs from "@alicloud/ecs20140526";
import { readFileSync } from "fs";
import { setTimeout as sleep } from "timers/promises";
import { Command, commandText } from "../../consul/machine/commands";
import { CloudConfig } from "../../settings";
import { Cloud, Machine, MustBeStoppedError, Outcome, RefusedError } from "./cloud";

/** Actions that the credentials of `pulumi up` need for the gate. */
const actions =
  "ecs:DescribeInstances, ecs:DescribeCloudAssistantStatus, ecs:RunCommand, ecs:DescribeInvocationResults, " +
  "ecs:ModifyInstanceAttribute, ecs:RebootInstance, ecs:StopInstance, ecs:StartInstance";

/** Seconds for which the result of a command is waited for, beyond those that the command may take. */
const deliverySeconds = 30;

/** Characters of a command, in base64, that the cloud takes (RunCommand). */
const commandLimit = 18 * 1024;

/** The cloud behind the ECS API, with the endpoint and credentials that the alicloud provider takes from the same places. */
export class EcsApi implements Cloud {
  private connected: ReturnType<typeof connect> | undefined;

  constructor(private readonly config: CloudConfig) {}

  async machines(vpcId: string, tag: { readonly key: string; readonly value: string }): Promise<Machine[]> {
    const { ecs, client } = this.connection();
    const { region: regionId } = this.config;
    const request = new ecs.DescribeInstancesRequest({ regionId, vpcId, tag: [tag], maxResults: 100 });
    const { body } = await insist(() => client.describeInstances(request));
    return (body?.instances?.instance ?? []).map(({ instanceId = "", instanceName = "", status = "" }) => ({
      id: instanceId,
      name: instanceName,
      status,
    }));
  }

  async run(ids: readonly string[], command: Command, seconds = 120): Promise<ReadonlyMap<string, Outcome>> {
    const ready = await this.withAssistant(ids);
    const outcomes = new Map<string, Outcome>(
      ids.filter((id) => !ready.includes(id)).map((id) => [id, { problem: "its Cloud Assistant is not there" }]),
    );
    if (ready.length === 0) return outcomes;
    const invokeId = await this.send(ready, commandText(command), seconds);
    for (const [id, outcome] of await this.results(invokeId, ready, seconds)) outcomes.set(id, outcome);
    return outcomes;
  }

  async storeUserData(id: string, userData: string): Promise<void> {
    const { ecs, client } = this.connection();
    const request = new ecs.ModifyInstanceAttributeRequest({ instanceId: id, userData });
    try {
      await insist(() => client.modifyInstanceAttribute(request));
    } catch (error) {
      const { code } = ((error as Error).cause ?? {}) as Partial<Failure>;
      if (code?.startsWith("IncorrectInstanceStatus")) throw new MustBeStoppedError(code, { cause: error });
      throw error;
    }
  }

  async power(id: string, action: "reboot" | "stop" | "start"): Promise<void> {
    const { ecs, client } = this.connection();
    const instanceId = id;
    await insist(async () => {
      if (action === "reboot") await client.rebootInstance(new ecs.RebootInstanceRequest({ instanceId }));
      else if (action === "start") await client.startInstance(new ecs.StartInstanceRequest({ instanceId }));
      // KeepCharging: a capacity that was given back may not be there for the start.
      else await client.stopInstance(new ecs.StopInstanceRequest({ instanceId, stoppedMode: "KeepCharging" }));
    });
  }

  private connection() {
    // Not before it is needed: only an update of a server or its last check needs it.
    this.connected ??= connect(this.config);
    return this.connected;
  }

  /** "Running" says nothing of the machine's system: what is sent before its agent is there comes back as failed. */
  private async withAssistant(ids: readonly string[]): Promise<string[]> {
    const { ecs, client } = this.connection();
    const request = new ecs.DescribeCloudAssistantStatusRequest({ regionId: this.config.region, instanceId: [...ids] });
    const { body } = await insist(() => client.describeCloudAssistantStatus(request));
    const known = body?.instanceCloudAssistantStatusSet?.instanceCloudAssistantStatus ?? [];
    return ids.filter((id) => known.some((s) => s.instanceId === id && s.cloudAssistantStatus === "true"));
  }

  private async send(ids: readonly string[], text: string, timeout: number): Promise<string | undefined> {
    const { ecs, client } = this.connection();
    const commandContent = Buffer.from(text).toString("base64");
    if (commandContent.length > commandLimit) {
      throw new Error(`a command has ${commandContent.length} characters in base64, the cloud takes ${commandLimit}`);
    }
    const request = new ecs.RunCommandRequest({
      regionId: this.config.region,
      type: "RunShellScript",
      name: "consul-pulumi",
      commandContent,
      contentEncoding: "Base64",
      instanceId: [...ids],
      timeout,
    });
    const { body } = await insist(() => client.runCommand(request));
    return body?.invokeId;
  }

  private async results(
    invokeId: string | undefined,
    ids: readonly string[],
    seconds: number,
  ): Promise<Map<string, Outcome>> {
    const { ecs, client } = this.connection();
    const request = new ecs.DescribeInvocationResultsRequest({
      regionId: this.config.region,
      invokeId,
      contentEncoding: "Base64",
      maxResults: 50,
    });
    const outcomes = new Map<string, Outcome>();
    const deadline = Date.now() + (seconds + deliverySeconds) * 1000;
    for (;;) {
      await sleep(1000);
      const { body } = await insist(() => client.describeInvocationResults(request));
      for (const result of body?.invocation?.invocationResults?.invocationResult ?? []) {
        const outcome = outcomeOf(result.invocationStatus, result.exitCode, result);
        if (result.instanceId !== undefined && outcome) outcomes.set(result.instanceId, outcome);
      }
      const missing = ids.filter((id) => !outcomes.has(id));
      if (missing.length === 0) return outcomes;
      if (Date.now() > deadline) for (const id of missing) outcomes.set(id, { problem: "its answer did not come" });
    }
  }
}

function connect(config: CloudConfig) {
  // Loaded here and not above: the SDK takes most of a second.
  const ecs = require("@alicloud/ecs20140526") as typeof import("@alicloud/ecs20140526");
  const { $OpenApiUtil } = require("@alicloud/openapi-core") as typeof import("@alicloud/openapi-core");
  const ca = process.env.SSL_CERT_FILE;
  const client: Ecs = new ecs.default(
    new $OpenApiUtil.Config({
      regionId: config.region,
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
  return { ecs, client };
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
  const problem = `the command ended as ${status ?? ""}${exitCode ? ` (${exitCode})` : ""}: ${said}`;
  return exitCode ? { problem, ran: true } : { problem };
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
      // A status that does not allow something comes with 403 as well, and with a code of its own.
      const forbidden = statusCode === 403 && !code.startsWith("Incorrect");
      if (statusCode === 401 || forbidden || /AccessKey|Signature|SecurityToken|Credentials/.test(code)) {
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
  if (assumeRole === undefined) {
    const { profile, ecsRoleName } = config;
    if (profile !== undefined) return { credential: new Credential(null, ofProfile(profile)) };
    if (ecsRoleName === undefined) return { credential: new Credential() };
    return { credential: new Credential(new Config({ type: "ecs_ram_role", roleName: ecsRoleName })) };
  }
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

/** The credentials of a profile of the aliyun CLI. */
function ofProfile(name: string) {
  const { default: Provider } =
    require("@alicloud/credentials/dist/src/providers/cli_profile") as typeof import("@alicloud/credentials/dist/src/providers/cli_profile");
  return Provider.builder().withProfileName(name).build();
}
