import { ConfigMap } from "@pulumi/kubernetes/core/v1/configMap";
import { Secret } from "@pulumi/kubernetes/core/v1/secret";
import { ServiceAccount } from "@pulumi/kubernetes/core/v1/serviceAccount";
import { ClusterRoleBinding } from "@pulumi/kubernetes/rbac/v1/clusterRoleBinding";
import { Role } from "@pulumi/kubernetes/rbac/v1/role";
import { RoleBinding } from "@pulumi/kubernetes/rbac/v1/roleBinding";
import * as pulumi from "@pulumi/pulumi";
import { TokenReviewer } from "../../consul/logins";
import { labelsOf } from "./objects";

/** The ConfigMap in each namespace of `consul:logins`, and its key that names the auth method. */
export const loginConfig = { name: "consul-login", key: "method" };

export interface LoginReviewerArgs {
  /** Namespace of the reviewer. */
  readonly namespace: pulumi.Input<string>;
  /** Namespaces of the service accounts that log in. */
  readonly namespaces: readonly string[];
  /** URL of the API server, as the Consul servers reach it. */
  readonly apiServer: string;
  /** Refuse to be taken away: without it nobody can log in. */
  readonly protect: boolean;
}

/**
 * The service account with which Consul asks the API server who owns a token. The account may review tokens, and read
 * the service accounts of those namespaces, because Consul looks at their annotations at each login.
 */
export class LoginReviewer extends pulumi.ComponentResource {
  /** What the auth method needs. Secret. */
  readonly reviewer: pulumi.Output<TokenReviewer>;

  constructor(name: string, args: LoginReviewerArgs, opts?: pulumi.ComponentResourceOptions) {
    super("consul:index:LoginReviewer", name, {}, opts);
    const { namespace, protect } = args;
    const parent = { parent: this };
    const labels = labelsOf("login-reviewer");
    const account = new ServiceAccount(
      name,
      { metadata: { name, namespace, labels }, automountServiceAccountToken: false },
      { ...parent, protect },
    );
    const subjects = [{ kind: "ServiceAccount", name: account.metadata.name, namespace }];
    const roleRef = (kind: string, name: pulumi.Input<string>) => ({
      apiGroup: "rbac.authorization.k8s.io",
      kind,
      name,
    });
    new ClusterRoleBinding(
      `${name}-delegator`,
      {
        // The name is the cluster's, and another stack may have another namespace of this cluster.
        metadata: { name: pulumi.interpolate`${namespace}-login-reviewer`, labels },
        roleRef: roleRef("ClusterRole", "system:auth-delegator"),
        subjects,
      },
      parent,
    );
    for (const of of args.namespaces) {
      const metadata = { name, namespace: of, labels };
      const rules = [{ apiGroups: [""], resources: ["serviceaccounts"], verbs: ["get"] }];
      const role = new Role(`${name}-${of}`, { metadata, rules }, parent);
      new RoleBinding(
        `${name}-${of}-binding`,
        { metadata, roleRef: roleRef("Role", role.metadata.name), subjects },
        parent,
      );
    }
    // Consul stores this token, so the token must not expire. Kubernetes fills the Secret in.
    const secret = new Secret(
      `${name}-token`,
      {
        metadata: {
          name: `${name}-token`,
          namespace,
          labels,
          annotations: { "kubernetes.io/service-account.name": account.metadata.name },
        },
        type: "kubernetes.io/service-account-token",
      },
      parent,
    );
    this.reviewer = pulumi.secret(
      secret.data.apply((data: Readonly<Record<string, string>> | undefined) => ({
        apiServer: args.apiServer,
        caCertificate: decoded(data, "ca.crt"),
        token: decoded(data, "token"),
      })),
    );
    this.registerOutputs({});
  }
}

function decoded(data: Readonly<Record<string, string>> | undefined, key: string): string {
  const value = data?.[key];
  if (value === undefined) {
    throw new Error(
      `the Secret of the login reviewer has no ${key} yet: Kubernetes fills it in within seconds, so run \`pulumi up\` ` +
        "once more; where it stays empty, the cluster's controller manager gives out no tokens of service accounts",
    );
  }
  return Buffer.from(value, "base64").toString();
}

/** Tells the applications of a namespace which auth method is theirs. */
export function loginConfigMap(
  name: string,
  { namespace, method }: { readonly namespace: string; readonly method: string },
  opts: pulumi.CustomResourceOptions,
): ConfigMap {
  return new ConfigMap(
    name,
    {
      metadata: { name: loginConfig.name, namespace, labels: labelsOf("logins") },
      data: { [loginConfig.key]: method },
    },
    opts,
  );
}
