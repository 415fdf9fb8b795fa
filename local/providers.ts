import { createHash, randomBytes, randomInt } from "crypto";
import { chmodSync, existsSync, readFileSync, renameSync, writeFileSync } from "fs";
import { stableJson } from "../consul/node";
import { uuid } from "../consul/secrets";
import {
  certRequest,
  Inputs,
  locallySignedCert,
  Made,
  millisecondsPerHour,
  privateKey,
  selfSignedCert,
} from "./certificates";
import type { Provided, Providers } from "./program";

/** One type of resource: the inputs that it heeds, and how it is made from them. */
interface Kind {
  readonly inputs: readonly string[];
  readonly make: (inputs: Inputs, now: Date) => Made | Promise<Made>;
}

/** What is remembered of one resource: a fingerprint of its inputs, and what was made for them. */
interface Remembered extends Made {
  readonly inputs: string;
}

interface StateFile {
  /** Names these keys: data that was written with them has the same id beside it. */
  readonly id: string;
  readonly resources: Record<string, Remembered>;
}

/**
 * Answers for the random and tls resources of this program as their providers would: with real passwords, keys and
 * certificates. They are kept in a file, so the same inputs give the same result at the next start. A resource whose
 * inputs have changed is made anew, as is a certificate within its `earlyRenewalHours`.
 */
export class LocalProviders implements Providers {
  private readonly state: StateFile;

  /**
   * @param file where results are kept, mode 0600: it holds private keys
   * @param now the clock that certificates go by
   * @throws where the file is there and cannot be read
   */
  constructor(
    private readonly file: string,
    private readonly now: () => Date = () => new Date(),
  ) {
    this.state = existsSync(file) ? readState(file) : { id: randomBytes(8).toString("hex"), resources: {} };
  }

  /** Names the keys in the file; made with the file and never changed. */
  get id(): string {
    return this.state.id;
  }

  async resource({ type, name, inputs }: Parameters<Providers["resource"]>[0]): Promise<Provided> {
    const given = inputs as Inputs;
    const kind = Object.hasOwn(kinds, type) ? kinds[type] : undefined;
    if (!kind) throw new Error(`${name}: there is no local provider for a ${type}, see local/providers.ts`);
    const unknown = Object.keys(given).filter((key) => !kind.inputs.includes(key));
    if (unknown.length > 0) throw new Error(`${name}: the local ${type} does not know ${unknown.join(", ")}`);

    const key = `${type}::${name}`;
    const fingerprint = createHash("sha256").update(stableJson(given)).digest("hex");
    let known = this.state.resources[key];
    if (known?.inputs !== fingerprint || this.isDue(known, given)) {
      known = { inputs: fingerprint, ...(await kind.make(given, this.now())) };
      this.state.resources[key] = known;
    }
    return { id: known.id, state: { ...given, ...known.outputs } };
  }

  call({ token }: Parameters<Providers["call"]>[0]): never {
    throw new Error(`there is no local provider for the function ${token}, see local/providers.ts`);
  }

  /** Writes what is remembered, all of it or nothing. */
  save(): void {
    const temporary = `${this.file}.${process.pid}.tmp`;
    writeFileSync(temporary, stableJson(this.state), { mode: 0o600 });
    chmodSync(temporary, 0o600);
    renameSync(temporary, this.file);
  }

  private isDue({ outputs }: Remembered, inputs: Inputs): boolean {
    if (typeof outputs.validityEndTime !== "string") return false;
    const early = Number(inputs.earlyRenewalHours ?? 0) * millisecondsPerHour;
    return this.now().getTime() + early >= Date.parse(outputs.validityEndTime);
  }
}

function readState(file: string): StateFile {
  try {
    const state = JSON.parse(readFileSync(file, "utf8")) as Partial<StateFile>;
    if (typeof state.id !== "string" || typeof state.resources !== "object") throw new Error("it has no keys in it");
    return state as StateFile;
  } catch (error) {
    const [why = ""] = (error as Error).message.split("\n");
    throw new Error(`${file} cannot be read (${why}): put a copy of it back, or forget keys and data with --reset`, {
      cause: error,
    });
  }
}

const kinds: Readonly<Record<string, Kind>> = {
  "random:index/randomPassword:RandomPassword": {
    inputs: ["length", "lower", "upper", "numeric", "special", "overrideSpecial"],
    make: randomPassword,
  },
  "random:index/randomUuid7:RandomUuid7": { inputs: [], make: randomUuid7 },
  "tls:index/privateKey:PrivateKey": { inputs: ["algorithm", "ecdsaCurve"], make: privateKey },
  "tls:index/selfSignedCert:SelfSignedCert": {
    inputs: [
      "allowedUses",
      "dnsNames",
      "earlyRenewalHours",
      "ipAddresses",
      "isCaCertificate",
      "privateKeyPem",
      "setAuthorityKeyId",
      "setSubjectKeyId",
      "subject",
      "validityPeriodHours",
    ],
    make: selfSignedCert,
  },
  "tls:index/certRequest:CertRequest": {
    inputs: ["privateKeyPem", "subject", "dnsNames", "ipAddresses"],
    make: certRequest,
  },
  "tls:index/locallySignedCert:LocallySignedCert": {
    inputs: [
      "allowedUses",
      "caCertPem",
      "caPrivateKeyPem",
      "certRequestPem",
      "earlyRenewalHours",
      "isCaCertificate",
      "setSubjectKeyId",
      "validityPeriodHours",
    ],
    make: locallySignedCert,
  },
};

function randomPassword(inputs: Inputs): Made {
  const alphabet = [
    inputs.lower === false ? "" : "abcdefghijklmnopqrstuvwxyz",
    inputs.upper === false ? "" : "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    inputs.numeric === false ? "" : "0123456789",
    inputs.special === false ? "" : ((inputs.overrideSpecial as string | undefined) ?? "!@#$%&*()-_=+[]{}<>:?"),
  ].join("");
  const result = Array.from({ length: Number(inputs.length) }, () => alphabet.charAt(randomInt(alphabet.length)));
  return { id: "none", outputs: { result: result.join("") } };
}

function randomUuid7(_: Inputs, now: Date): Made {
  const time = now.getTime().toString(16).padStart(12, "0");
  const random = randomBytes(10).toString("hex");
  const variant = ((parseInt(random.charAt(3), 16) & 0x3) | 0x8).toString(16);
  const digits = `${time}7${random.slice(0, 3)}${variant}${random.slice(4, 19)}`;
  const result = uuid(digits);
  return { id: result, outputs: { result } };
}
