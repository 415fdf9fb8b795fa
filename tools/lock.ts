import { rmSync } from "fs";
import { readFile, rm, stat, utimes, writeFile } from "fs/promises";
import { setTimeout as sleep } from "timers/promises";

/**
 * Waits until this process holds the lock. The holder renews the file's time every few seconds, so the lock of a process
 * that is gone ends by itself. Two holders at once would cost a second build and nothing else: each renames its result
 * into place.
 */
export async function lock(file: string, waiting: () => void): Promise<() => Promise<void>> {
  for (let attempt = 0; ; attempt++) {
    try {
      await writeFile(file, `${process.pid}\n`, { flag: "wx" });
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    if (await abandoned(file)) {
      await rm(file, { force: true });
    } else {
      if (attempt % 20 === 0) waiting();
      await sleep(500);
    }
  }
  const renew = setInterval(() => void utimes(file, new Date(), new Date()).catch(() => undefined), 5_000);
  const onExit = () => rmSync(file, { force: true });
  process.once("exit", onExit);
  return async () => {
    clearInterval(renew);
    process.off("exit", onExit);
    await rm(file, { force: true });
  };
}

async function abandoned(file: string): Promise<boolean> {
  try {
    const [{ mtimeMs }, text] = await Promise.all([stat(file), readFile(file, "utf8")]);
    if (Date.now() - mtimeMs > 30_000) return true;
    const holder = Number(text);
    if (holder > 0) process.kill(holder, 0);
    return false;
  } catch (error) {
    // ESRCH: the holder is gone. ENOENT: the holder has just given the lock back. EPERM: it lives, as another user.
    return ["ESRCH", "ENOENT"].includes((error as NodeJS.ErrnoException).code ?? "");
  }
}
