import { Flags, Misuse } from "../local/command";

/** Options by which a task finds the servers of a stack. */
export const wayFlags = {
  context: { type: "string", value: "NAME", about: "the kubectl context of the cluster" },
  dir: { type: "string", value: "DIRECTORY", about: "directory of a cluster of npm start, as there" },
  config: {
    type: "string",
    short: "c",
    multiple: true,
    default: [] as string[],
    value: "KEY=VALUE",
    about: "a setting of a cluster of npm start, as there",
  },
} as const satisfies Flags;

/** The one stack that a task is about. @throws Misuse where none is named, or several */
export function oneStack([stack, ...rest]: readonly string[], task: string): string {
  if (stack === undefined || rest.length > 0) {
    throw new Misuse(`one stack is needed, such as: npm run ${task} -- prod`);
  }
  return stack;
}

/** Ends a task whose question nobody could answer, with the reason. */
export function unanswered(cause: unknown): never {
  throw new Misuse((cause as Error).message, { cause });
}
