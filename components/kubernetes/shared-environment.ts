import { ConfigMap } from "@pulumi/kubernetes/core/v1/configMap";
import * as pulumi from "@pulumi/pulumi";
import { sharedEnvironment, sharedEnvironmentName } from "./app-environment";
import { ClusterAccess } from "./cluster";
import { labelsOf } from "./objects";

/**
 * A ConfigMap in each namespace that has applications, for manifests that no Pulumi program writes. The name is fixed:
 * people write it into their manifests. Nothing in it is secret.
 * @param namespaces of applications, in any order and as often as there are applications
 */
export function createSharedEnvironment(namespaces: readonly string[], { namespace, provider }: ClusterAccess): void {
  for (const target of new Set(namespaces)) {
    new ConfigMap(
      `consul-access-${target}`,
      {
        metadata: { name: sharedEnvironmentName, namespace: target, labels: labelsOf("access") },
        data: pulumi.output(namespace).apply(sharedEnvironment),
      },
      { provider },
    );
  }
}
