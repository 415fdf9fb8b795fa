/** What the commands of package.json have in common: how each of them ends, and what a table looks like. */

const outputs = [process.stdout, process.stderr];

/**
 * Runs a command and ends this process with the status that `main` gives; with status 1 and one line where `main` throws.
 * A reader of the output that has seen enough, as `head` has, is no reason to complain.
 * @param name what begins that line, "" for nothing
 */
export function runCommand(name: string, main: (args: string[]) => Promise<number>): void {
  for (const stream of outputs) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE") throw error;
    });
  }
  main(process.argv.slice(2)).then(
    // Where a pipe takes its time, what was written is still to be passed on.
    (status) => process.stdout.write("", () => process.exit(status)),
    (error: unknown) => {
      const message = error instanceof Error ? error.message : String(error);
      console.error(name === "" ? message : `${name}: ${message}`);
      process.exit(1);
    },
  );
}

/** Resolves once somebody wants this process to end: by Ctrl-C, another signal, or since nobody reads its output. */
export function interruption(): Promise<NodeJS.Signals> {
  return new Promise((interrupted) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, interrupted);
    for (const stream of outputs) {
      stream.on("error", ({ code }: NodeJS.ErrnoException) => {
        if (code === "EPIPE") interrupted("SIGPIPE");
      });
    }
    // npm passes on two signals. Where another signal ends npm, npm is just gone.
    const npm = process.ppid;
    if (process.env.npm_lifecycle_event) setInterval(() => process.ppid !== npm && interrupted("SIGHUP"), 500).unref();
  });
}

/**
 * Works with a cluster until the work is done, or somebody wants an end to it. Either way every node is stopped then.
 * @param stopping is told of the signal before the nodes are stopped
 * @returns what the work gives, or the signal that came before
 */
export async function untilInterrupted<T>(
  cluster: { stop(): Promise<void> },
  work: () => Promise<T>,
  stopping: (signal: NodeJS.Signals) => void = () => undefined,
): Promise<T | NodeJS.Signals> {
  const interrupted = interruption().then((signal) => {
    stopping(signal);
    return signal;
  });
  try {
    return await Promise.race([interrupted, work()]);
  } finally {
    await cluster.stop();
  }
}

/** Settings as options of a command give them, KEY=VALUE. @throws where one is something else */
export function configOf(given: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    given.map((one) => {
      const [, key, value] = /^([^=]+)=(.*)$/s.exec(one) ?? [];
      if (key === undefined || value === undefined) throw new Error(`--config ${one}: KEY=VALUE is wanted`);
      return [key.includes(":") ? key : `consul:${key}`, value] as const;
    }),
  );
}

/** Rows of cells as lines with aligned columns. @param gap spaces between the longest cell of a column and the next one */
export function aligned(rows: readonly (readonly string[])[], gap = 3): string[] {
  const width = (column: number) => Math.max(...rows.map((row) => (row[column] ?? "").length));
  return rows.map((row) => {
    const cells = row.map((cell, column) => cell.padEnd(width(column) + gap));
    return cells.join("").trimEnd();
  });
}
