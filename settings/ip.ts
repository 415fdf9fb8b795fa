/** Arithmetic on IPv4 addresses, as unsigned 32-bit numbers. */

export function isIpv4(value: string): boolean {
  const parts = value.split(".");
  return parts.length === 4 && parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255);
}

export function toNumber(address: string): number {
  return address.split(".").reduce((n, part) => n * 256 + Number(part), 0);
}

/** A network whose host bits are zero, such as 10.16.0.0/16. */
export function isCidr(value: string): boolean {
  const [address, bits, ...rest] = value.split("/");
  if (!address || !bits || rest.length > 0 || !isIpv4(address) || !/^\d{1,2}$/.test(bits) || Number(bits) > 32) {
    return false;
  }
  return toNumber(address) % 2 ** (32 - Number(bits)) === 0;
}

/** Networks that are nobody's on the internet (RFC 1918, RFC 6598). */
const privateNetworks = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"];

/** Whether every address of a network is private. */
export function isPrivate(cidr: string): boolean {
  const [first, last] = firstAndLast(cidr);
  return privateNetworks.map(firstAndLast).some(([from, to]) => from <= first && last <= to);
}

/** First and last address of a network. */
export function firstAndLast(cidr: string): [number, number] {
  const [address, bits] = cidr.split("/");
  const first = toNumber(address ?? "");
  return [first, first + 2 ** (32 - Number(bits)) - 1];
}

export function cidrContains(cidr: string, address: string): boolean {
  const [first, last] = firstAndLast(cidr);
  const n = toNumber(address);
  return first <= n && n <= last;
}
