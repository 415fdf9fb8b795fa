import { Secret } from "@pulumi/kubernetes/core/v1/secret";
import * as pulumi from "@pulumi/pulumi";
import { formerPrefix, grantObjects, grantOwner, Keeper } from "../../consul/access";
import { accessorId, AclObject } from "../../consul/acl";
import type { PodImage } from "../../consul/pod/image";
import { TokenReference } from "./app-access";
import { randomToken } from "../random";
import { aclWork, serversJob } from "./job";
import { base64Values, labelsOf } from "./objects";
import { PodMarks } from "./pod";

export type { TokenReference };

/** Who gets a token: an application, or a tool of this program. */
export interface TokenHolder {
  readonly name: string;
  /** Rules of its policy. */
  readonly rules: readonly string[];
  /** Namespace and name of the Secret that holds its token. */
  readonly namespace: pulumi.Input<string>;
  readonly secretName: string;
  /** Another generation is another token. */
  readonly generation: number;
  /** Whether the token of the generation before is to be revoked. */
  readonly revokeOld: boolean;
}

export interface AccessTokensArgs {
  readonly holders: readonly TokenHolder[];
  /** What lets others log in, beside the holders' policies and tokens. Secret. */
  readonly logins: pulumi.Input<readonly AclObject[]>;
  /** This stack, among all that keep tokens in the same servers. */
  readonly keeper: Keeper;
  /** Namespace of the Job. */
  readonly namespace: pulumi.Input<string>;
  /** What every pod in the cluster has. */
  readonly marks: PodMarks;
  /** An image with curl and a shell, such as Consul's own. */
  readonly image: PodImage;
  readonly serverUrls: pulumi.Input<string[]>;
  /** Servers on ECS let the nodes' networks in, and not those of pods. */
  readonly serversInCluster: boolean;
  readonly caCertificate: pulumi.Input<string>;
  /** Secret. */
  readonly managementToken: pulumi.Input<string>;
  /** Refuse to delete the Job while somebody holds a token: nothing would revoke the token after that. */
  readonly protect: boolean;
}

/**
 * Policies and tokens for applications and tools. A Job puts them in place through the servers' HTTPS API and revokes
 * those of this stack that are not wanted any more. The Job runs whenever the wanted set changes, even to an empty set.
 * The Secrets are made after the Job, so a token that somebody can read is valid already.
 */
export class AccessTokens extends pulumi.ComponentResource {
  /** By name of the holder. */
  readonly tokens: Readonly<Record<string, pulumi.Output<TokenReference>>>;

  constructor(name: string, args: AccessTokensArgs, opts?: pulumi.ComponentResourceOptions) {
    super("consul:index:AccessTokens", name, {}, opts);
    const { namespace, holders } = args;
    const parent = { parent: this };
    const labels = labelsOf("access-tokens");

    const secrets = holders.map(tokensOf);
    const objects = pulumi.secret(
      pulumi.all([pulumi.all(secrets), pulumi.output(args.logins)]).apply(([secrets, logins]) => [
        ...grantObjects(
          args.keeper,
          holders.map(({ name, rules }, i) => ({ name, rules, secrets: secrets[i] ?? [] })),
        ),
        ...logins,
      ]),
    );
    const { image, serverUrls, caCertificate, managementToken } = args;
    const job = serversJob(
      name,
      {
        accountName: "consul-access-tokens",
        namespace,
        labels,
        marks: args.marks,
        image,
        serverUrls,
        caCertificate,
        managementToken,
        ...aclWork(grantOwner(args.keeper), objects, formerPrefix(args.keeper)),
        hostNetwork: !args.serversInCluster,
        protect: args.protect,
      },
      parent,
    );
    this.tokens = Object.fromEntries(holders.map((holder, i) => [holder.name, createSecret(holder, secrets[i])]));
    this.registerOutputs({});

    /** The valid tokens of a holder, newest first. */
    function tokensOf({ name: holder, generation, revokeOld }: TokenHolder): pulumi.Output<string[]> {
      const generations = generation > 1 && !revokeOld ? [generation, generation - 1] : [generation];
      return pulumi.all(generations.map((n) => randomToken(`${name}-${holder}-${n}`, parent)));
    }

    // A fixed name: a pod that restarts before its deployment knows of a new token must find one.
    function createSecret(holder: TokenHolder, valid: pulumi.Output<string[]> | undefined) {
      const token = pulumi.secret(pulumi.output(valid ?? []).apply(([newest]) => newest ?? ""));
      const secret = new Secret(
        `${name}-${holder.name}`,
        {
          metadata: { name: holder.secretName, namespace: holder.namespace, labels },
          type: "Opaque",
          data: token.apply((value) => base64Values({ token: value })),
        },
        { ...parent, dependsOn: [job] },
      );
      return pulumi
        .all([secret.metadata.namespace, secret.metadata.name, pulumi.unsecret(token.apply(accessorId))])
        .apply(([namespace, secretName, accessorId]) => ({ namespace, secretName, key: "token", accessorId }));
    }
  }
}
