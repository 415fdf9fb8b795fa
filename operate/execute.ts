import { execFile } from "child_process";

/** Runs a program. @returns what it prints @throws its last words */
export function execute(
  file: string,
  args: readonly string[],
  { input, seconds, env }: { input: string; seconds: number; env: NodeJS.ProcessEnv },
): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { env, timeout: seconds * 1000, killSignal: "SIGKILL" as const, maxBuffer: 256 << 20 };
    const child = execFile(file, args, options, (error, stdout, stderr) => {
      if (!error) return void resolve(stdout);
      if (error.code === "ENOENT") return void reject(new Error(`${file} is not on PATH`));
      const last = stderr.trim().split("\n").at(-1);
      reject(
        new Error(
          error.killed ? `no answer within ${seconds} s` : last === "" || last === undefined ? error.message : last,
        ),
      );
    });
    // One that ends before it has read everything says so by itself.
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(input);
  });
}
