import { parseArgs } from "util";
import { configOf, runCommand } from "../local/command";
import { ask } from "./answers";
import { judge, Status } from "./judge";
import { print } from "./print";
import { serversOf, WayOptions } from "./servers";
import { readStack, StackOptions } from "./stack";

const usage = `npm run status -- STACK [OPTION…]

How a deployment is, as its servers say at this moment: voters, leader, versions, certificates and keys with the days that
they have left, the last snapshot, agents that are behind, and whether each server may go down. Nothing is changed.

Servers on ECS are asked through Cloud Assistant, so this needs no way into their network; servers in a cluster through
kubectl; servers of npm start directly. Settings and outputs of a deployed stack are read with Pulumi's CLI.

  --json                JSON on standard output
  --context NAME        the kubectl context of the cluster that has the servers
  --dir DIRECTORY       directory of a cluster of npm start, as there
  --config KEY=VALUE    a setting of a cluster of npm start, as there
  --help                show this
Exit code: 0 where all is well, 1 where something is wrong, 2 where nobody could be asked.
Colours are for a terminal, unless NO_COLOR is set.
`;

/** Reads a stack, asks its servers and judges what they say. @throws where nobody can be asked */
export async function statusOf(name: string, options: StackOptions & WayOptions = {}): Promise<Status> {
  const stack = await readStack(name, options);
  return judge(stack, await ask(stack, serversOf(stack, options)), new Date());
}

/**
 * @param write takes the result
 * @param complain takes why there is none
 * @param colours whether the result has colours
 * @param cloud another way to the machines than the ECS API, for tests
 * @returns the exit code
 */
export async function main(
  args: string[],
  write: (text: string) => void,
  complain: (text: string) => void,
  colours = false,
  cloud?: WayOptions["cloud"],
): Promise<number> {
  try {
    const { values, positionals } = parseArgs({
      args,
      options: {
        json: { type: "boolean" },
        context: { type: "string" },
        dir: { type: "string" },
        config: { type: "string", short: "c", multiple: true, default: [] },
        help: { type: "boolean", short: "h" },
      },
      allowPositionals: true,
    });
    if (values.help) {
      write(usage);
      return 0;
    }
    const [name, ...rest] = positionals;
    if (name === undefined || rest.length > 0) throw new Error("one stack is needed, such as: npm run status -- prod");
    const { json, context, dir, config } = values;
    const status = await statusOf(name, { context, dir, config: configOf(config), cloud });
    write(json ? `${JSON.stringify(status, null, 2)}\n` : print(status, colours));
    return status.ok ? 0 : 1;
  } catch (error) {
    complain(`status: ${(error as Error).message}\n`);
    return 2;
  }
}

if (require.main === module) {
  const { stdout, stderr } = process;
  const write = (text: string) => void stdout.write(text);
  const complain = (text: string) => void stderr.write(text);
  runCommand("status", (args) => main(args, write, complain, stdout.isTTY && stdout.hasColors()));
}
