import * as pulumi from "@pulumi/pulumi";
import { RandomPassword } from "@pulumi/random/randomPassword";
import { tokenUuid } from "../consul/secrets";

/**
 * Random hexadecimal digits, secret. RandomPassword, because RandomBytes and RandomUuid make their result the
 * resource's id, and an id is never secret: it is plain in the state and in what the CLI prints. RandomPassword's id
 * is "none".
 */
export function randomHex(name: string, digits: number, opts: pulumi.CustomResourceOptions): pulumi.Output<string> {
  const random = new RandomPassword(
    name,
    { length: digits, special: true, overrideSpecial: "0123456789abcdef", lower: false, upper: false, numeric: false },
    opts,
  );
  return pulumi.secret(random.result);
}

/** A token's secret id: a random UUID. Secret. */
export function randomToken(name: string, opts: pulumi.CustomResourceOptions): pulumi.Output<string> {
  return pulumi.secret(randomHex(name, 32, opts).apply(tokenUuid));
}
