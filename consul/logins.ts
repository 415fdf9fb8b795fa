import { AppAccess, appRules, grantOwner, Keeper, keeperId } from "./access";
import { AclObject, marked, policy } from "./acl";
import { stableJson } from "./node";

/** Who may log in with the token of a Kubernetes service account, and what the token that Consul gives may do. */
export interface Login {
  readonly namespace: string;
  /** Service accounts of the namespace; empty for all that it has and will have. */
  readonly serviceAccounts: readonly string[];
  /** As for an application; without a value the one service that is called like the service account. */
  readonly services?: readonly string[] | undefined;
  readonly kv: AppAccess["kv"];
  readonly policy?: string | undefined;
}

/** How the servers ask a cluster's API server whose a service account's token is. */
export interface TokenReviewer {
  /** URL of the API server, as the Consul servers reach it. */
  readonly apiServer: string;
  /** PEM of the authority of its certificate. */
  readonly caCertificate: string;
  /** Secret. Token of a service account that may review tokens. */
  readonly token: string;
}

/** Services that an application must not register: it would pose as the servers, or as an agent. */
export const reservedServices = ["consul", "consul-members"];

/** The auth method of a stack: each has its own, since each has its own API server. */
export function loginMethod(keeper: Keeper): string {
  return `kubernetes-${keeperId(keeper)}`;
}

/** The longest name of a policy that Consul takes. */
const longestPolicyName = 128;

/** Whether the policy of a service account has a name that Consul takes. */
export function isNameable(namespace: string, serviceAccount: string): boolean {
  const keeper = { project: "", stack: "" };
  return policyName(keeper, grantName(namespace, serviceAccount)).length <= longestPolicyName;
}

/** Kubernetes' names have no underscore, so no two grants have the same. */
function grantName(namespace: string, serviceAccount?: string): string {
  return serviceAccount === undefined ? namespace : `${namespace}_${serviceAccount}`;
}

function policyName(keeper: Keeper, name: string): string {
  return `login_${keeperId(keeper)}_${name}`;
}

/**
 * The auth method of a stack, and for each login a policy and the rules that bind it; nothing for nobody. A service
 * account that is not listed has a policy of its namespace, and by a second rule the service of its own name.
 */
export function loginObjects(keeper: Keeper, logins: readonly Login[], reviewer: TokenReviewer): AclObject[] {
  if (logins.length === 0) return [];
  const owner = grantOwner(keeper);
  const method = loginMethod(keeper);
  const whose = (name: string) => marked(`${name}, stack ${keeper.stack}, project ${keeper.project}`, owner);
  const rule = (name: string, selector: readonly string[], BindType: string, BindName: string): AclObject => ({
    file: `rule.${name}.json`,
    content: stableJson({
      AuthMethod: method,
      Description: whose(name),
      Selector: selector.join(" and "),
      BindType,
      BindName,
    }),
  });
  const grant = (name: string, selector: readonly string[], access: AppAccess): AclObject[] => {
    const Name = policyName(keeper, name);
    const description = `logins of ${name.replace("_", "/")}, stack ${keeper.stack}, project ${keeper.project}`;
    return [policy(Name, description, owner, appRules(access)), rule(name, selector, "policy", Name)];
  };
  const objects = logins.flatMap(({ namespace, serviceAccounts, services, kv, policy }): AclObject[] => {
    const inNamespace = `serviceaccount.namespace=="${namespace}"`;
    if (serviceAccounts.length > 0) {
      return serviceAccounts.flatMap((account) => {
        const selector = [inNamespace, `serviceaccount.name=="${account}"`];
        return grant(grantName(namespace, account), selector, { services: services ?? [account], kv, policy });
      });
    }
    const all = grant(namespace, [inNamespace], { services: services ?? [], kv, policy });
    if (services !== undefined) return all;
    // Consul writes the name of the service in small letters, however the account's annotation has it.
    const own = [inNamespace, `serviceaccount.name not matches "(?i)^(${reservedServices.join("|")})$"`];
    return [...all, rule(`${namespace}__own`, own, "service", "${serviceaccount.name}")];
  });
  const Config = {
    Host: reviewer.apiServer,
    CACert: reviewer.caCertificate,
    ServiceAccountJWT: reviewer.token,
  };
  const content = stableJson({
    Name: method,
    Type: "kubernetes",
    Description: whose("logins"),
    TokenLocality: "local",
    Config,
  });
  return [...objects, { file: `method.${method}.json`, content }];
}
