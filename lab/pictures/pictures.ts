import { mkdirSync, writeFileSync } from "fs";
import { join } from "path";
import { defineTask } from "../../local/command";
import { programDir } from "../../local/program";
import { chosen, listed } from "../chosen";
import { architecture } from "./architecture";
import { rollingChange } from "./rolling";

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
};

export const pictureDirectory = join(programDir, "docs/pictures");

export const task = defineTask({
  name: "pictures",
  usage: "[-- NAME…]",
  about: "makes the pictures of the documents anew, in docs/pictures/",
  before: listed(drawn),
  after: "All of them unless named.",
  flags: {},
  takesNames: true,
  run: async ({ names, write }) => {
    mkdirSync(pictureDirectory, { recursive: true });
    for (const [, { make }] of chosen("picture", drawn, names)) {
      for (const [file, content] of Object.entries(await make())) {
        writeFileSync(join(pictureDirectory, file), content);
        write(`docs/pictures/${file}\n`);
      }
    }
    return 0;
  },
});
