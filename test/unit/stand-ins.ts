import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "fs";
import { tmpdir } from "os";
import { join } from "path";

/** A directory for a script under test, with programs that stand in for those of the machine. */
export interface StandIns {
  readonly directory: string;
  /** What the script is run with: the programs first on PATH, PLAY for the directory, and a server with its token. */
  readonly environment: Readonly<Record<string, string>>;
  /** Writes a file there. @returns its path */
  readonly file: (name: string, content: string) => string;
}

/** Gives `act` such a directory and removes it afterwards. @param programs by name, as text */
export function withStandIns<T>(programs: Readonly<Record<string, string>>, act: (standIns: StandIns) => T): T {
  const directory = mkdtempSync(join(tmpdir(), "consul-stand-ins-"));
  const file = (name: string, content: string) => {
    writeFileSync(join(directory, name), content);
    return join(directory, name);
  };
  try {
    mkdirSync(join(directory, "bin"));
    for (const [name, text] of Object.entries(programs)) chmodSync(file(`bin/${name}`, text), 0o755);
    const environment = {
      PATH: `${join(directory, "bin")}:${process.env.PATH ?? ""}`,
      PLAY: directory,
      CONSUL_HTTP_ADDR: "https://server",
      CONSUL_HTTP_TOKEN_FILE: file("token", "secret"),
    };
    return act({ directory, environment, file });
  } finally {
    rmSync(directory, { recursive: true });
  }
}
