import { setTimeout as sleep } from "timers/promises";
import type { Cluster } from "../../local/supervisor";
import { healthy } from "../healthy";
import { reason } from "../load";
import { Fault, faults } from "./faults";
import { Operation, operations } from "./operations";
import { Subject } from "./subject";

/** What came of one operation with one fault. */
export interface Cell {
  readonly operation: string;
  readonly fault: string;
  /**
   * done: in spite of the fault. stopped: before anything was lost, with a message that names the remedy, and done
   * after that. unfit: it makes no sense. failed: none of these. not run: it cannot run here, or was not yet.
   */
  readonly outcome: "done" | "stopped" | "unfit" | "failed" | "not run";
  /** The message or the warning, why it makes no sense, or what failed. */
  readonly said: string;
  /** From the fault to the end, without the start of the cluster. */
  readonly seconds?: number;
  /** Seconds, the longest time without an acknowledged write. */
  readonly writeGap?: number;
  /** Operations in the history of reads and writes. */
  readonly history?: number;
  /** Lookups over DNS, and how many of them failed. */
  readonly lookups?: number;
  readonly lookupsFailed?: number;
}

/** Minutes that the gate waits (consul:gate.waitMinutes), where a fault does not say otherwise. */
const patience = 2;
/** Seconds after which an operation that says nothing has failed. */
const limit = 240;

/** The reason why a cell makes no sense; undefined where it does. */
export function unfit(operation: string, fault: string): string | undefined {
  return operations[operation]?.unfit?.[fault];
}

/**
 * Starts a cluster, has the fault happen and the operation done, and the remedy where the operation stops.
 * @param dir directory of the cluster
 * @param prefix three numbers of its addresses
 * @param made is told of the cluster before its first process
 */
export async function runCell(
  names: Pick<Cell, "operation" | "fault">,
  dir: string,
  prefix: string,
  progress: (line: string) => void,
  made: (cluster: Cluster) => void,
): Promise<Cell> {
  const operation = operations[names.operation];
  const fault = faults[names.fault];
  if (!operation || !fault) throw new Error(`there is no cell ${names.operation}/${names.fault}`);
  const said = unfit(names.operation, names.fault);
  if (said !== undefined) return { ...names, outcome: "unfit", said };
  progress("the cluster starts");
  const subject = await Subject.start(dir, prefix, { ...operation.beginning, ...fault.beginning }, made);
  const began = Date.now();
  let end: Pick<Cell, "outcome" | "said">;
  try {
    if (operation.prepare) await within(operation.prepare(subject));
    end = await under(subject, operation, fault, progress);
  } catch (error) {
    end = { outcome: "failed", said: oneLine(reason(error)) };
  }
  progress("the history is checked");
  const stopped = subject.clients.stop();
  const seen = await within(stopped).catch((error: unknown) => oneLine(reason(error)));
  if (typeof seen === "string") return { ...names, ...end, outcome: "failed", said: [end.said, seen].join("; ") };
  const { total, failed, error } = seen.lookups;
  const problems = [seen.broken, failed > 0 ? `${failed} lookups over DNS failed: ${error}` : ""];
  const found = problems.filter((problem) => problem !== "");
  return {
    ...names,
    ...(found.length > 0 ? { outcome: "failed", said: [end.said, ...found].join("; ") } : end),
    seconds: Math.round((Date.now() - began) / 1000),
    writeGap: Math.round(seen.writeGap * 100) / 100,
    history: seen.operations,
    lookups: total,
    lookupsFailed: failed,
  };
}

async function under(
  subject: Subject,
  operation: Operation,
  fault: Fault,
  progress: (line: string) => void,
): Promise<Pick<Cell, "outcome" | "said">> {
  progress("the fault happens");
  await within(Promise.resolve(fault.inflict(subject)));
  progress("the operation is done");
  subject.warnings.length = 0;
  subject.rollout.waitMinutes = fault.waitMinutes ?? patience;
  const message = await within(operation.run(subject)).then(
    () => undefined,
    (error: unknown) => oneLine(reason(error)),
  );
  subject.rollout.resting = "";
  const warned = oneLine(subject.warnings.at(-1) ?? "");
  if (message !== undefined) {
    if (!fault.names.test(message)) throw new Error(`the message names no remedy: ${message}`);
    const kept = operation.takesQuorum === true || (await subject.writes());
    if (!kept) throw new Error(`stopped, and no write is acknowledged: ${message}`);
  }
  progress("the remedy is done");
  await sleep(200); // what fails unheard belongs to this attempt
  subject.rollout.waitMinutes = patience;
  await fault.remedy(subject);
  if (message !== undefined) await within(operation.run(subject));
  progress("all is to be well");
  if (operation.finish) {
    await within(subject.rollout.up({})); // a stack that was left behind comes up to the present step first
    await within(operation.finish(subject));
  }
  await within(subject.rollout.up({}));
  await healthy(subject.cluster);
  await operation.check(subject);
  return message === undefined ? { outcome: "done", said: warned } : { outcome: "stopped", said: message };
}

async function within<T>(work: Promise<T>): Promise<T> {
  const late = sleep(limit * 1000, undefined, { ref: false }).then(() => {
    throw new Error(`nothing has come of it in ${limit} s`);
  });
  return Promise.race([work, late]);
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, " ").trim();
}
