import { createHash } from "crypto";

/** Turns hexadecimal random text into the forms Consul wants. */

/** A gossip key: 32 bytes in base64, from 64 hexadecimal digits. */
export function gossipKey(hex: string): string {
  return Buffer.from(hex, "hex").toString("base64");
}

/** A UUID as it is written, from 32 hexadecimal digits. */
export function uuid(digits: string): string {
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** A token: a version 4 UUID, from 32 hexadecimal digits. */
export function tokenUuid(hex: string): string {
  const variant = ((parseInt(hex.charAt(16), 16) & 0x3) | 0x8).toString(16);
  const digits = `${hex.slice(0, 12)}4${hex.slice(13, 16)}${variant}${hex.slice(17, 32)}`;
  return uuid(digits);
}

/** The time in a version 7 UUID: when the program made what the UUID stands beside. */
export function uuid7Time(uuid: string): Date {
  return new Date(parseInt(uuid.replace(/-/g, "").slice(0, 12), 16));
}

/** One way only: names a key or a certificate where it may be seen. */
export function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
