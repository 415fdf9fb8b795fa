import { deepEqual, ok } from "assert/strict";
import { readdirSync, readFileSync } from "fs";
import { join } from "path";
import { programDir } from "../../local/program";

/** The call that makes a resource of each kind: RAM asks for the right to it. */
const creates: Record<string, string> = {
  "ecs/ecsDeploymentSet:EcsDeploymentSet": "ecs:CreateDeploymentSet",
  "ecs/ecsDisk:EcsDisk": "ecs:CreateDisk",
  "ecs/ecsDiskAttachment:EcsDiskAttachment": "ecs:AttachDisk",
  "ecs/instance:Instance": "ecs:RunInstances",
  "ecs/securityGroup:SecurityGroup": "ecs:CreateSecurityGroup",
  "ecs/securityGroupRule:SecurityGroupRule": "ecs:AuthorizeSecurityGroup",
  "oss/bucket:Bucket": "oss:*",
  "oss/bucketPublicAccessBlock:BucketPublicAccessBlock": "oss:*",
  "ram/policy:Policy": "ram:CreatePolicy",
  "ram/role:Role": "ram:CreateRole",
  "ram/rolePolicyAttachment:RolePolicyAttachment": "ram:AttachPolicyToRole",
};

const read = (path: string) => readFileSync(join(programDir, path), "utf8");
const { Statement } = JSON.parse(read("docs/ram-policy.json")) as {
  Statement: { Effect: string; Action: string | string[]; Resource: string | string[] }[];
};
const allowed = new Set(Statement.flatMap(({ Action }) => Action));

describe("docs/ram-policy.json", () => {
  it("allows what makes each kind of resource that a committed stack has", () => {
    const kinds = new Set(
      readdirSync(join(programDir, "test/expected")).flatMap((file) =>
        [...read(`test/expected/${file}`).matchAll(/"alicloud:([\w/]+:\w+)"/g)].map(([, kind = ""]) => kind),
      ),
    );
    ok(kinds.size > 8);
    const missing = [...kinds].filter((kind) => !allowed.has(creates[kind] ?? `nothing makes a ${kind}`));
    deepEqual(missing, []);
  });

  it("allows every call that the gate makes", () => {
    const named = read("components/ecs/ecs-api.ts").match(/ecs:[A-Z]\w+/g) ?? [];
    ok(named.length > 5);
    deepEqual(
      named.filter((action) => !allowed.has(action)),
      [],
    );
  });

  it("leaves no administrator: no wildcard but in the bucket, and roles and policies of this program alone", () => {
    const wide = Statement.filter(({ Action }) => [Action].flat().some((action) => action.includes("*")));
    deepEqual(
      wide.flatMap(({ Resource }) => Resource),
      ["acs:oss:*:*:example-consul-staging", "acs:oss:*:*:example-consul-staging/*"],
    );
    for (const { Action, Resource } of Statement) {
      if ([Action].flat().some((action) => action.startsWith("ram:"))) {
        for (const resource of [Resource].flat()) ok(/:(role|policy)\/consul-\*$/.test(resource), resource);
      }
    }
  });
});
