import { deepEqual, match, ok } from "assert/strict";
import { execFileSync } from "child_process";
import { existsSync, readFileSync } from "fs";
import { join } from "path";
import { z } from "zod";
import { schema } from "../../settings";
import { ports } from "../../consul/config";
import { programDir, stackConfig } from "../../local/program";
import { commandsOf, documented } from "../documents";

const read = (name: string) => readFileSync(join(programDir, name), "utf8");

/** The names of all settings at every depth. */
function names(type: unknown, found = new Set<string>()): Set<string> {
  if (type instanceof z.ZodObject) {
    for (const [key, value] of Object.entries(type.shape)) {
      found.add(key);
      names(value, found);
    }
  } else if (type instanceof z.ZodArray) names(type.element, found);
  else if (type instanceof z.ZodDiscriminatedUnion) for (const option of type.options) names(option, found);
  else if (type instanceof z.ZodPipe) names(type.def.out, found);
  else if (type instanceof z.ZodOptional || type instanceof z.ZodDefault || type instanceof z.ZodPrefault) {
    names(type.def.innerType, found);
  }
  return found;
}

/** Where commands of the documents are run: what they look like, the file that runs them, and how it is found there. */
const runs: readonly (readonly [RegExp, string, string])[] = [
  [/^npm ci$/, ".ci/run", "npm ci"],
  [/^npm test$/, ".ci/run", "npm test"],
  [/^npm start( -- --check)?$/, ".ci/run", "npm start -- --check"],
  [/^npm start -- --reset$/, "test/local/start.test.ts", '"--reset"'],
  [/^npm run preview( -- prod)?$/, "test/program/preview.test.ts", 'run("prod")'],
  [/^npm run compose$/, "test/local/compose.test.ts", "compose"],
  [/^npm run tour$/, "test/local/tour.test.ts", "tour"],
  [/^npm run test:(system|engine)$/, ".ci/run", "npm run test:engine"],
  // The same steps, each by itself.
  [/^npm run (test:unit|check)$/, ".ci/run", "npx tsc --noEmit"],
  [/^npm run expected$/, "test/program/program.test.ts", "expected"],
  // Started with --help below; the local level does what the drills do.
  [/^npm run (drill|bench)$/, "test/local/faults.test.ts", "drills"],
  [/^npm pack$/, "test/program/example.ts", '"pack"'],
  [/^node .* tools\/build\.ts kwok$/, "test/unit/build.test.ts", "tools/build.ts kwok"],
  // Where Pulumi's CLI is: README, "Two commands".
  [/^pulumi /, "test/engine/local.test.ts", "documented()"],
  [/^(CONSUL_HTTP_TOKEN_FILE=\S+ )?(consul|curl) /, "test/local/commands.test.ts", "documented()"],
  [/^kubectl (-n consul )?delete /, "test/system/kubectl.test.ts", "documented()"],
  // These want a kubelet. What they run in a container, the test runs in one.
  [/^kubectl -n consul exec .* -- consul snapshot /, "test/local/moving-up.test.ts", '"snapshot", "restore"'],
  [/^(pulumi .*)?kubectl -n consul exec .* cat /, "test/local/moving-up.test.ts", "cat >/tmp/new-token"],
  [/^kubectl -n consul cp /, "test/local/moving-up.test.ts", "cat >/tmp/new-token"],
  [/^kubectl -n consul port-forward consul-server-0 8500$/, "test/local/kube-servers.test.ts", "http://127.0.0.1:8500"],
  [/^aliyun ecs RunCommand .*'systemctl restart consul-acl'/, "test/unit/cloud-assistant.test.ts", "RunCommand"],
  [/^systemctl (restart|status) consul-acl$/, "test/system/machines.test.ts", "systemctl restart consul-acl"],
  [/^systemctl stop consul$/, "test/system/machines.test.ts", "consul leave && systemctl stop consul"],
  [/^systemctl start consul-snapshot$/, "test/system/machine-snapshots.test.ts", "systemctl start consul-snapshot"],
  [/^systemctl list-timers /, "test/system/machine-snapshots.test.ts", "systemctl list-timers"],
  [/^journalctl -u /, "test/system/machine.ts", "journalctl"],
  // Downloads the CLI, which no registry has and nothing here may need.
  [/^npx pulumi$/, "README.md", "`npx pulumi` downloads it"],
  // What people did before, and not what is to be done.
  [/^docker run$/, "README.md", "before (five write-ups)"],
];

describe("the documents", () => {
  it("have no command that nothing runs", () => {
    const all = documented();
    ok(all.length > 60);
    const unknown = all.filter(({ command }) => {
      const place = runs.find(([pattern]) => pattern.test(command));
      return place === undefined || !read(place[1]).includes(place[2]);
    });
    deepEqual(unknown, []);
    deepEqual(
      runs.filter(([pattern]) => !all.some(({ command }) => pattern.test(command))).map(([pattern]) => String(pattern)),
      [],
    );
  });

  it("have commands in shell blocks, over several lines too, and in sentences", () => {
    const text = "Do `npm run x`, or `x`:\n\n  ```sh\n  a \\\n    -b\n  c |\n  d\n  ```\n\n```yaml\n`npm start`\n```\n";
    deepEqual(commandsOf(text), ["a -b", "c | d", "npm run x"]);
  });

  it("name every setting in the README's table", () => {
    const table = read("README.md").split("## Settings")[1]?.split("## Outputs")[0] ?? "";
    // What Kubernetes itself calls these is in its own documents.
    const known = new Set(["requests", "limits", "cpu", "memory", "operator", "value", "effect"]);
    const all = [...names(schema)];
    ok(all.length > 60);
    deepEqual(
      all.filter((name) => !known.has(name) && !new RegExp(`\\b${name}\\b`).test(table)),
      [],
    );
  });

  it("name every output in the README's table", () => {
    const table = read("README.md").split("## Outputs")[1]?.split("\n## ")[0] ?? "";
    const fields = [...read("stacks/outputs.ts").matchAll(/^ {2}(\w+): pulumi\.Output</gm)].map(
      ([, name = ""]) => name,
    );
    ok(fields.length > 10);
    deepEqual(
      fields.filter((name) => !table.includes(`\`${name}\``)),
      [],
    );
  });

  it("name every task of package.json in the README's table, and no other", () => {
    const table = read("README.md").split("| task ")[1]?.split("\n## ")[0] ?? "";
    const named = [...table.matchAll(/^\| (.*?) \|/gm)].flatMap(([, cell = ""]) =>
      [...cell.matchAll(/`(?:npm run |npm )?([a-z:]+)`/g)].map(([, name = ""]) => name),
    );
    const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
    deepEqual(named.sort(), Object.keys(scripts).sort());
  });

  for (const task of ["start", "preview", "tour", "compose", "drill", "bench"]) {
    it(`say what npm run ${task} does with --help`, () => {
      const args = ["run", "--silent", task, "--", "--help"];
      match(
        execFileSync("npm", args, { cwd: programDir, encoding: "utf8" }),
        new RegExp(`^npm (run )?${task}.*\\[`, "m"),
      );
    });
  }

  it("have a picture with the addresses of Pulumi.prod.yaml and the ports of the configuration", () => {
    const picture = /```\n([\s\S]*?)```/.exec(read("README.md"))?.[1] ?? "";
    const { nodes } = JSON.parse(stackConfig("prod")["consul:servers"] ?? "") as {
      nodes: { name: string; address: string }[];
    };
    deepEqual(
      [...picture.matchAll(/(\S+) +ECS [^\n]*\n[^\n]*?(\d+\.\d+\.\d+\.\d+)/g)].map(([, name, address]) => [
        name,
        address,
      ]),
      nodes.map(({ name, address }) => [name, address]),
    );
    for (const [text, port] of [
      ["RPC", ports.rpc],
      ["gossip", ports.gossip],
    ]) {
      ok(picture.includes(`${port} ${text}`), `${port} ${text}`);
    }
    ok(picture.includes(`HOST_IP:${ports.http}`));
  });

  it("link to files that are there", () => {
    const missing = ["README.md", "README.zh-CN.md"].flatMap((document) =>
      [...read(document).matchAll(/\]\(([^)#:]+)\)/g)]
        .map(([, to = ""]) => to)
        .filter((to) => !existsSync(join(programDir, to))),
    );
    deepEqual(missing, []);
  });

  it("are the same in both languages: headings by level and order, and every command", () => {
    const shape = (document: string) => {
      const text = read(document);
      return {
        headings: [...text.matchAll(/^(#+) /gm)].map(([, level]) => level),
        commands: [...text.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block]) => block),
        tableRows: [...text.matchAll(/^\|/gm)].length,
      };
    };
    deepEqual(shape("README.zh-CN.md"), shape("README.md"));
  });
});
