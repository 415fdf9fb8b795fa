import * as pulumi from "@pulumi/pulumi";

/** The value of an output that is known, as in an update. */
export function valueOf<T>(output: pulumi.Output<T>): Promise<T> {
  return new Promise((resolve) => void output.apply(resolve));
}
