import { equal, match } from "assert/strict";
import { leftover } from "../../components/leftovers";

describe("what a killed `up` left behind", () => {
  const daemonSet = { metadata: { name: "consul-agent", namespace: "consul" } };
  const instance = { instanceName: "consul-1", privateIp: "10.16.190.28" };
  const cases: readonly (readonly [string, object, string, RegExp])[] = [
    [
      "kubernetes:apps/v1:DaemonSet",
      daemonSet,
      'daemonsets.apps "consul-agent" already exists',
      /^DaemonSet consul\/consul-agent is there already[^]*names thing then[^]*`kubectl -n consul delete daemonset consul-agent`/,
    ],
    [
      "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding",
      { metadata: { name: "consul-login" } },
      'clusterrolebindings.rbac.authorization.k8s.io "consul-login" already exists',
      /^ClusterRoleBinding consul-login is[^]*`kubectl delete clusterrolebinding consul-login`/,
    ],
    [
      "kubernetes:core/v1:Namespace",
      { metadata: { name: "consul" } },
      'namespaces "consul" already exists',
      /^Namespace consul is[^]*\n {4}Set consul:cluster\.createNamespace to false, and run `pulumi up` again/,
    ],
    [
      "kubernetes:core/v1:PersistentVolumeClaim",
      { metadata: { name: "consul-snapshots", namespace: "consul" } },
      'persistentvolumeclaims "consul-snapshots" already exists',
      /If it is as young[^]*holds nothing, take it away, `kubectl -n consul delete persistentvolumeclaim consul-snapshots`/,
    ],
    [
      "kubernetes:core/v1:Service",
      { metadata: { name: "consul-dns", namespace: "consul" } },
      "failed to allocate IP 172.21.10.53: provided IP is already allocated",
      /^Service consul\/consul-dns, or its address, is there already[^]*`kubectl -n consul delete service consul-dns`/,
    ],
    [
      "alicloud:ecs/instance:Instance",
      instance,
      "ErrorCode: InvalidIPAddress.AlreadyUsed",
      /^A machine with consul-1's address 10\.16\.190\.28 is[^]*unless a data disk[^]*DescribeInstances --InstanceName consul-1`[^]*DeleteInstance/,
    ],
    [
      "alicloud:ram/role:Role",
      {},
      "EntityAlreadyExist.Role",
      /^thing is there already[^]*Take it away in the cloud's console, and/,
    ],
  ];
  for (const [type, inputs, error, said] of cases) {
    it(`is named with the way to take it away: ${type}`, () => {
      match(leftover(type, "thing", inputs as Record<string, unknown>, error) ?? "", said);
    });
  }

  it("is not what another failure is taken for", () => {
    equal(leftover("kubernetes:apps/v1:DaemonSet", "thing", daemonSet, "timed out waiting for pods"), undefined);
    equal(leftover("alicloud:ecs/instance:Instance", "thing", instance, "OperationDenied.NoStock"), undefined);
  });
});
