import { mkdirSync, readFileSync, writeFileSync } from "fs";
import { join, relative } from "path";
import { defineTask, showProgress } from "../../local/command";
import { programDir } from "../../local/program";
import { chosen, listed } from "../chosen";
import type { Timeline } from "../bench/timeline";
import { architecture } from "./architecture";
import { leaderKilled, newService, writeGaps } from "./plots";
import { recording } from "./recording";
import { rollingChange } from "./rolling";
import { screens } from "./screens";

const results = "lab/bench/results.md";
const read = (file: string) => readFileSync(join(programDir, file), "utf8");

interface Picture {
  readonly title: string;
  /** What goes into files of docs/pictures/, by the files' names. */
  readonly make: () => Promise<Readonly<Record<string, string | Buffer>>>;
}

/** Every picture by its name. Those of `drawn` are made from what is committed alone: the same each time. */
export const drawn: Readonly<Record<string, Picture>> = {
  architecture: {
    title: "servers, agents and what is between them, as the program describes prod",
    make: async () => ({
      "architecture.svg": await architecture("en"),
      "architecture.zh-CN.svg": await architecture("zh-CN"),
    }),
  },
  rolling: {
    title: "what happens in a rolling change, as a sequence",
    make: async () => ({
      "rolling-change.svg": await rollingChange("en"),
      "rolling-change.zh-CN.svg": await rollingChange("zh-CN"),
    }),
  },
  leader: {
    title: "writes and lookups per second while the leader is killed, as lab/bench/data/timeline.json has them",
    make: async () => {
      const timelines = JSON.parse(read("lab/bench/data/timeline.json")) as Timeline[];
      return { "leader-killed.svg": (await leaderKilled(timelines)).svg };
    },
  },
  gaps: {
    title: "longest time without a write, per operation, as docs/operations.md and lab/bench/results.md have them",
    make: async () => ({ "write-gaps.svg": (await writeGaps(read("docs/operations.md"), read(results))).svg }),
  },
  agents: {
    title: "time until every agent sees a new service, as lab/bench/results.md has it",
    make: async () => ({ "new-service.svg": (await newService(read(results))).svg }),
  },
};

/** Pictures of a cluster that runs: others each time. */
const taken: Readonly<Record<string, Picture>> = {
  screens: {
    title: "Consul's UI of a running cluster, by the Chromium on PATH",
    make: () => screens(showProgress),
  },
  recording: { title: "npm start in a terminal, from the command to Ctrl-C", make: recording },
};

export const pictureDirectory = join(programDir, "docs/pictures");

export const task = defineTask({
  name: "pictures",
  usage: "[-- [OPTION…] NAME…]",
  about: "makes the pictures of the documents anew, in docs/pictures/",
  before: `Made of what is committed, all of them unless named:\n${listed(drawn)}\n\nTaken of a cluster that is started for it:\n${listed(taken)}`,
  flags: {
    dir: { type: "string", value: "DIRECTORY", default: pictureDirectory, about: "put them there instead" },
  },
  takesNames: true,
  run: async ({ flags: { dir }, names, write }) => {
    mkdirSync(dir, { recursive: true });
    for (const [, { make }] of chosen("picture", names.length === 0 ? drawn : { ...drawn, ...taken }, names)) {
      for (const [file, content] of Object.entries(await make())) {
        writeFileSync(join(dir, file), content);
        write(`${relative(process.cwd(), join(dir, file))}\n`);
      }
    }
    return 0;
  },
});
