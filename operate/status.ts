import { configOf, defineTask } from "../local/command";
import { ask } from "./answers";
import { judge, Status } from "./judge";
import { print } from "./print";
import { serversOf, WayOptions } from "./servers";
import { readStack, StackOptions } from "./stack";
import { oneStack, unanswered, wayFlags } from "./stack-task";

/** Reads a stack, asks its servers and judges what they say. @throws where nobody can be asked */
export async function statusOf(name: string, options: StackOptions & WayOptions = {}): Promise<Status> {
  const stack = await readStack(name, options);
  return judge(stack, await ask(stack, serversOf(stack, options)), new Date());
}

/** @param cloud another way to the machines than the ECS API, for tests */
export const statusTask = (cloud?: WayOptions["cloud"]) =>
  defineTask({
    name: "status",
    usage: "-- STACK [OPTION…]",
    about: "how a deployment is, as its servers say at this moment",
    before: `Voters, leader, versions, certificates and keys with the days that they have left, the last snapshot, agents that are
behind, and whether each server may go down. Nothing is changed. Servers on ECS are asked through Cloud Assistant, so
this needs no way into their network; servers in a cluster through kubectl; servers of npm start directly. Settings and
outputs of a deployed stack are read with Pulumi's CLI.`,
    after: `Exit status 0 where all is well, 1 where something is wrong, 2 where nobody could be asked.
Colours are for a terminal, unless NO_COLOR is set.`,
    flags: {
      json: { type: "boolean", about: "the same as JSON" },
      ...wayFlags,
    },
    takesNames: true,
    run: async ({ flags: { json, context, dir, config }, names, write }) => {
      const name = oneStack(names, "status");
      const status = await statusOf(name, { context, dir, config: configOf(config), cloud }).catch(unanswered);
      const colours = process.stdout.isTTY && process.stdout.hasColors();
      write(json ? `${JSON.stringify(status, null, 2)}\n` : print(status, colours));
      return status.ok ? 0 : 1;
    },
  });

export const task = statusTask();
