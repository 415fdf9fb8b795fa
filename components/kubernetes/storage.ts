import { PersistentVolume } from "@pulumi/kubernetes/core/v1/persistentVolume";
import { PersistentVolumeClaim } from "@pulumi/kubernetes/core/v1/persistentVolumeClaim";
import type { Provider } from "@pulumi/kubernetes/provider";
import * as pulumi from "@pulumi/pulumi";
import { podLayout, ServerPod, serverSet } from "../../consul/pod/pod";
import { KubernetesServersSettings } from "../../settings";
import { noWait } from "./objects";
import { Mount } from "./pod";

type StorageSettings = KubernetesServersSettings["storage"];

export interface ServerStorageArgs {
  readonly settings: StorageSettings;
  readonly namespace: pulumi.Input<string>;
  readonly labels: Readonly<Record<string, string>>;
  readonly pods: readonly ServerPod[];
  /** Takes over the claims that an earlier stack left behind. Without one they go with the stack. */
  readonly keeper: Provider | undefined;
}

/** Where servers in the cluster have their data. */
export interface ServerStorage {
  readonly claims: readonly PersistentVolumeClaim[];
  /** The data directory of each pod. */
  readonly mount: Mount;
  /** What the StatefulSet has for a claim of each pod, if each has one. */
  readonly claimTemplates: { readonly volumeClaimTemplates?: object[] };
}

/** Makes a claim for each server, or one NFS directory for all of them, each server with a part of its own. */
export function createStorage(name: string, args: ServerStorageArgs, parent: pulumi.Resource): ServerStorage {
  const { settings, pods } = args;
  const mount = { name: "data", path: podLayout.dataDir, writable: true };
  if (settings.nfs) {
    const claim = createSharedClaim(name, settings.nfs, args, parent);
    const volume = { persistentVolumeClaim: { claimName: sharedClaim } };
    return { claims: [claim], mount: { ...mount, subPathExpr: "$(POD_NAME)", volume }, claimTemplates: {} };
  }
  return {
    claims: pods.map((pod) => createClaim(name, pod, args, parent)),
    mount,
    claimTemplates: { volumeClaimTemplates: [{ metadata: { name: mount.name }, spec: claimSpec(settings) }] },
  };
}

// Claims are resources of their own, under the names that the StatefulSet looks for: so `destroy` says that it keeps
// them, and a larger size is an update of the claim and not a new StatefulSet.
function createClaim(name: string, pod: ServerPod, args: ServerStorageArgs, parent: pulumi.Resource) {
  const { namespace, labels, settings, keeper } = args;
  return new PersistentVolumeClaim(
    `${name}-data-${pod.name}`,
    {
      // A class that binds with the first pod leaves the claim pending until then.
      metadata: { name: `data-${pod.name}`, namespace, labels, annotations: noWait },
      spec: claimSpec(settings),
    },
    keeper ? { parent, provider: keeper, retainOnDelete: true } : { parent },
  );
}

function claimSpec({ accessMode, class: storageClassName, size }: StorageSettings) {
  return { accessModes: [accessMode], storageClassName, resources: { requests: { storage: size } } };
}

const sharedClaim = `${serverSet}-data`;

function createSharedClaim(
  name: string,
  nfs: NonNullable<StorageSettings["nfs"]>,
  { namespace, labels, settings }: ServerStorageArgs,
  parent: pulumi.Resource,
): PersistentVolumeClaim {
  const shared = { accessModes: ["ReadWriteMany"], storageClassName: "", volumeMode: "Filesystem" };
  const storage = settings.size;
  const volume = new PersistentVolume(
    `${name}-nfs`,
    {
      metadata: { name: pulumi.interpolate`${namespace}-${sharedClaim}`, labels },
      spec: {
        ...shared,
        capacity: { storage },
        persistentVolumeReclaimPolicy: "Retain",
        mountOptions: [...nfs.mountOptions],
        nfs: { server: nfs.server, path: nfs.path },
        claimRef: { apiVersion: "v1", kind: "PersistentVolumeClaim", namespace, name: sharedClaim },
      },
    },
    { parent },
  );
  return new PersistentVolumeClaim(
    `${name}-data`,
    {
      metadata: { name: sharedClaim, namespace, labels },
      spec: { ...shared, volumeName: volume.metadata.name, resources: { requests: { storage } } },
    },
    { parent },
  );
}
