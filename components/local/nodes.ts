import * as pulumi from "@pulumi/pulumi";
import { AclObject } from "../../consul/acl";
import { ConsulNode, NodeLayout } from "../../consul/node";

/** Where a local node keeps things: below the directory that it is started in, so every path is relative. */
export function localLayout(node: string): NodeLayout {
  return { consul: "consul", configDir: `${node}/config`, secretDir: `${node}/secrets`, dataDir: `${node}/data` };
}

/** What `npm start` is to run: it reads this from the component's registration. */
export interface LocalNodeArgs {
  readonly node: pulumi.Input<ConsulNode>;
  /** Policies and tokens to put in place through this node; for servers. */
  readonly acl: pulumi.Input<readonly AclObject[]>;
}

/** A Consul node that `npm start` runs as a process on this machine. Nothing but a description: no resource below it. */
export class LocalNode extends pulumi.ComponentResource {
  static readonly type = "consul:index:LocalNode";

  constructor(name: string, args: LocalNodeArgs, opts?: pulumi.ComponentResourceOptions) {
    super(LocalNode.type, name, { node: pulumi.secret(args.node), acl: pulumi.secret(args.acl) }, opts);
    this.registerOutputs({});
  }
}
