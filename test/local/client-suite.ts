import { deepEqual, equal, match, ok } from "assert/strict";
import { once } from "events";
import { mkdtempSync, readFileSync, rmSync } from "fs";
import { createServer } from "http";
import { tmpdir } from "os";
import { join } from "path";
import { setTimeout as sleep } from "timers/promises";
import { isDeepStrictEqual } from "util";
import { parse } from "yaml";
import { EnvVar } from "../../components/kubernetes/app-access";
import { appRules, grantObjects } from "../../consul/access";
import { ports } from "../../consul/config";
import { Api } from "../../local/api";
import { programDir } from "../../local/program";
import { Cluster, onLoopback, startCluster } from "../../local/supervisor";
import { buildExample, Example, NotInstalled } from "../../tools/examples";
import { ask } from "./dns-client";
import { environmentOf, get, Pod, podEnvironment } from "./pod";

/** An application of examples/, in whatever language. All of them are asked the same. */
export interface ClientApp {
  /** Its folder. */
  readonly example: Example;
  /** The first three numbers of its loopback network. */
  readonly prefix: string;
  /** The command that starts it. @param built what was built of it */
  command(built: string): readonly string[];
  /** The file in examples/ that has its pods. */
  readonly manifest: string;
  /** The key that its configuration is read from. */
  readonly key: string;
  /** Its exit status after SIGTERM. */
  readonly exit: number;
}

const token = "0de50000-0000-4000-8000-0000000000c1";
const name = "orders";

/** What the pods of an application run. */
function manifest(file: string) {
  type Probe = { httpGet: { path: string } };
  type Container = { env: EnvVar[]; livenessProbe: Probe; readinessProbe: Probe };
  type Deployment = { spec: { template: { spec: { containers: [Container] } } } };
  const text = readFileSync(join(programDir, "examples", file), "utf8");
  return (parse(text) as Deployment).spec.template.spec.containers[0];
}

/** Tries an application against a real cluster, with a token as `consul:apps` makes it. */
export function clientSuite(app: ClientApp): void {
  describe(`examples/${app.example}`, function () {
    this.timeout(600_000);
    const address = `${app.prefix}.101`;
    const container = manifest(app.manifest);
    const undo: (() => unknown)[] = [];
    const pods: Pod[] = [];
    let cluster: Cluster;
    let command: readonly string[];
    /** The agent of another node: what other applications ask. */
    let elsewhere: Api;

    before(async function () {
      this.timeout(1_800_000); // a first build
      try {
        command = app.command(await buildExample(app.example, console.error));
      } catch (error) {
        if (!(error instanceof NotInstalled)) throw error;
        console.log(`      skipped: ${error.message}`);
        return this.skip();
      }
      const dir = mkdtempSync(join(tmpdir(), `consul-${app.example}-`));
      undo.push(() => rmSync(dir, { recursive: true, force: true }));
      cluster = await startCluster({ dir, config: onLoopback(app.prefix, 3, 2) });
      undo.push(() => cluster.stop());
      const read = ["config/application/", "config/orders/", "config/orders,"];
      const rules = appRules({ services: [name], kv: { read, write: [] } });
      await cluster.applyAcl(grantObjects({ project: "consul", stack: "test" }, [{ name, rules, secrets: [token] }]));
      elsewhere = cluster.api("agent-2", null);
      await configure("hello from the configuration");
    });
    afterEach(function () {
      if (this.currentTest?.state === "failed") console.log(`the application: ${pods.at(-1)?.logs.slice(-5000) ?? ""}`);
    });
    after(async () => {
      for (const pod of pods) await pod.end("SIGKILL");
      for (const step of undo.reverse()) await step();
    });

    function start(more: Record<string, string> = {}): Pod {
      const of = { node: cluster.node("agent-1").address, pod: address, token };
      const pod = new Pod(command, { ...podEnvironment(of, container.env), ...more });
      pods.push(pod);
      return pod;
    }
    const configure = (greeting: string) => cluster.api("server-1").put(`kv/${app.key}`, `greeting: ${greeting}\n`);
    const greeting = async () => {
      const { status, body } = await get(address, "/");
      equal(status, 200, body);
      return (JSON.parse(body) as { greeting: string }).greeting;
    };
    const found = async () => {
      const instances = await elsewhere.get<{ Service: { Address: string; Port: number } }[]>(
        `health/service/${name}?passing`,
      );
      return instances.map(({ Service }) => `${Service.Address}:${Service.Port}`);
    };
    const isFound = async () => deepEqual(await found(), [`${address}:8080`]);
    const isGone = async () => deepEqual(await found(), []);
    const agent = () => cluster.api("agent-1");
    /** Ids of the application's instances at its own agent. */
    const own = async () =>
      Object.keys(await agent().get<object>("agent/services")).filter((id) => id.startsWith(`${name}-`));
    const seconds = (began: number) => (Date.now() - began) / 1000;
    const until = (problem: string, attempt: () => Promise<unknown>) => cluster.until(problem, attempt, 120);

    let pod: Pod;

    it("takes its environment from what the Consul stack gives", () => {
      const given = environmentOf(name);
      const same = (one: EnvVar) => given.some((other) => isDeepStrictEqual(one, other));
      deepEqual(
        container.env.filter((variable) => !same(variable)),
        [],
      );
    });

    it("comes to life by itself when its agent was not there as it started", async () => {
      await cluster.end("agent-1");
      pod = start();
      await sleep(5000);
      await isGone();
      cluster.start("agent-1");
      const began = Date.now();
      await until("it is not found", isFound);
      console.log(`      found ${seconds(began).toFixed(1)} s after its agent was started; starts: ${pod.starts}`);
      equal(await greeting(), "hello from the configuration", "it runs without its configuration");
      equal((await get(address, container.livenessProbe.httpGet.path)).status, 200);
      equal((await get(address, container.readinessProbe.httpGet.path)).status, 200);
    });

    it("has a check by TTL", async () => {
      type Check = { ServiceName: string; Type: string; Status: string };
      const checks = Object.values(await agent().get<Record<string, Check>>("agent/checks")).filter(
        (check) => check.ServiceName === name,
      );
      deepEqual(
        checks.map(({ Type, Status }) => [Type, Status]),
        [["ttl", "passing"]],
      );
    });

    it("is found over DNS, and finds others", async () => {
      const dns = { address: cluster.node("agent-2").address, port: ports.dns };
      const { answers } = await ask(dns, `${name}.service.consul`);
      deepEqual(
        answers.map((answer) => (answer as { data: unknown }).data),
        [address],
      );
      const { status, body } = await get(address, "/find/consul");
      equal(status, 200, body);
      deepEqual(
        (JSON.parse(body) as { address: string; port: number }[]).map((one) => `${one.address}:${one.port}`).sort(),
        [11, 12, 13].map((last) => `${app.prefix}.${last}:${ports.rpc}`),
      );
    });

    it("follows a change of its configuration", async () => {
      const took: number[] = [];
      for (const next of ["one", "two", "three", "four", "five"]) {
        await sleep(Math.random() * 3000);
        await configure(next);
        const began = Date.now();
        await until(`it does not greet with ${next}`, async () => {
          equal(await greeting(), next);
        });
        took.push(seconds(began));
      }
      console.log(`      changes were seen after ${took.map((one) => one.toFixed(1)).join(", ")} s`);
      ok(Math.max(...took) < 15, "a change takes long");
    });

    /** Looks for the application all the time. @returns what ends it, and gives when it was missed first and last */
    function watchFor(): () => Promise<{ first: number; last: number; missed: number }> {
      const watch = { over: false, first: 0, last: 0, missed: 0 };
      const watcher = (async () => {
        while (!watch.over) {
          await sleep(50);
          if ((await found()).length > 0) continue;
          watch.last = Date.now();
          watch.first ||= watch.last;
          watch.missed++;
        }
      })();
      return async () => {
        watch.over = true;
        await watcher;
        return watch;
      };
    }

    it("is found all the time while its agent is restarted and 2 s away", async () => {
      const end = watchFor();
      await cluster.end("agent-1");
      await sleep(2000);
      cluster.start("agent-1");
      await cluster.ready();
      await sleep(15_000);
      const { first, last, missed } = await end();
      equal(missed, 0, `not found for ${(last - first) / 1000} s`);
    });

    it("is found again by itself after its agent has lost its data", async () => {
      const took: number[] = [];
      const { starts } = pod;
      const registrations = () => pod.logs.match(/\bregister(ed|ing service)\b/gi)?.length ?? 0;
      for (let round = 0; round < 3; round++) {
        const before = registrations();
        await cluster.end("agent-1");
        cluster.wipe("agent-1");
        await sleep(2000);
        const end = watchFor();
        cluster.start("agent-1");
        const began = Date.now();
        // The catalog has the instance until the agent says that it has none. Who registers sooner is never missed.
        await cluster.ready();
        await sleep(15_000);
        await until("it is not found again", isFound);
        const { last, missed } = await end();
        equal((await own()).length, 1, "the agent does not know it");
        ok(registrations() > before, "the agent did not lose it");
        took.push(missed === 0 ? 0 : (last - began) / 1000);
      }
      equal(pod.starts, starts, "it needed another start");
      console.log(`      found ${took.map((one) => one.toFixed(1)).join(", ")} s after its empty agent was started`);
      ok(Math.max(...took) < 10, "that takes long");
    });

    it("is not found any more after it was killed, even where another program has got its address", async () => {
      await pod.end("SIGKILL");
      const began = Date.now();
      await isFound();
      const other = createServer((_, response) => response.end("another application"));
      await once(other.listen(8080, address), "listening");
      await until("a dead instance is found", isGone);
      console.log(`      found for ${seconds(began).toFixed(1)} s after it was killed`);
      await sleep(10_000);
      await isGone();
      await new Promise((closed) => other.close(closed));
    });

    /** Calls the application all the time, as whoever keeps an answer from DNS for as long as that is allowed: 5 s. */
    function call(): () => Promise<{ calls: number; refused: string[] }> {
      const caller = { over: false, calls: 0, refused: [] as string[] };
      const calling = (async () => {
        let [known, since]: [string[], number] = [[], 0];
        while (!caller.over) {
          await sleep(20);
          if (Date.now() - since > 5000) [known, since] = [await found(), Date.now()];
          for (const one of known) {
            caller.calls++;
            const answer = await get(one.replace(":8080", ""), "/").catch((error: unknown) => String(error));
            if (typeof answer === "string" || answer.status !== 200) caller.refused.push(JSON.stringify(answer));
          }
        }
      })();
      return async () => {
        caller.over = true;
        await calling;
        return caller;
      };
    }

    it("deregisters on SIGTERM, and stops when nobody has its address any more: no caller is refused", async () => {
      pod = start();
      await until("it is not found", isFound);
      const hangUp = call();
      await sleep(1000);
      const began = Date.now();
      const status = await pod.end("SIGTERM");
      const stopped = seconds(began);
      await isGone();
      deepEqual(await own(), []);
      const { calls, refused } = await hangUp();
      console.log(`      stopped ${stopped.toFixed(1)} s after SIGTERM, ${calls} calls, ${refused.length} refused`);
      deepEqual(refused, []);
      ok(calls > 50);
      equal(status, app.exit);
    });

    it("refuses no caller either where it does not wait, and its preStop asks for maintenance and waits", async () => {
      pod = start({ DRAIN_SECONDS: "0" });
      await until("it is not found", isFound);
      const hangUp = call();
      await sleep(1000);
      const [id = ""] = await own();
      await cluster.api("agent-1", token).put(`agent/service/maintenance/${id}?enable=true`);
      await sleep(6000);
      await isGone();
      await pod.end("SIGTERM");
      await sleep(1000);
      const { calls, refused } = await hangUp();
      deepEqual(refused, []);
      ok(calls > 50);
      deepEqual(await own(), []);
    });

    it("logs nothing of its token", () => {
      const logs = pods.map((one) => one.logs).join("\n");
      match(logs, /regist/i);
      ok(!logs.includes(token));
    });
  });
}
