import { Bucket } from "@pulumi/alicloud/oss/bucket";
import { BucketPublicAccessBlock } from "@pulumi/alicloud/oss/bucketPublicAccessBlock";
import { Policy } from "@pulumi/alicloud/ram/policy";
import { Role } from "@pulumi/alicloud/ram/role";
import { RolePolicyAttachment } from "@pulumi/alicloud/ram/rolePolicyAttachment";
import * as pulumi from "@pulumi/pulumi";
import { stableJson } from "../consul/node";

export interface BackupBucketArgs {
  readonly bucket: string;
  /** Where objects may be put; ends with a slash. */
  readonly prefix: string;
  /** Days after which an object goes; what was overwritten or deleted goes as many days later. */
  readonly days: number;
  /** Name of the policy that lets them be put. */
  readonly policyName: string;
  /** Whose objects they are: the name of a role that is there already, or one to make. */
  readonly role: string | NewRole;
  readonly tags: Readonly<Record<string, string>>;
  /** Refuse to delete the bucket. */
  readonly protect: boolean;
}

/** A RAM role to make. */
export interface NewRole {
  readonly name: string;
  readonly description: string;
  /** The statement that says who may assume it. */
  readonly trust: object;
}

/** Lets ECS machines that have the role assume it. */
export const trustMachines = {
  Action: "sts:AssumeRole",
  Effect: "Allow",
  Principal: { Service: ["ecs.aliyuncs.com"] },
};

/** For whom the token of a service account is that the cloud takes for credentials. */
export const tokenAudience = "sts.aliyuncs.com";

/** Lets the pods of one service account assume a role: RRSA, "RAM roles for service accounts". */
export function trustServiceAccount(
  { providerArn, issuerUrl }: { readonly providerArn: string; readonly issuerUrl: string },
  account: { readonly namespace: string; readonly name: string },
) {
  return {
    Action: "sts:AssumeRole",
    Effect: "Allow",
    Principal: { Federated: [providerArn] },
    Condition: {
      StringEquals: {
        "oidc:aud": tokenAudience,
        "oidc:iss": issuerUrl,
        "oidc:sub": `system:serviceaccount:${account.namespace}:${account.name}`,
      },
    },
  };
}

/** An OSS bucket for snapshots, and a RAM role that may put objects below one prefix of it and do nothing else. */
export class BackupBucket extends pulumi.ComponentResource {
  readonly roleName: pulumi.Output<string>;
  /** Of a role that was made here. */
  readonly roleArn: pulumi.Output<string> | undefined;

  constructor(name: string, args: BackupBucketArgs, opts?: pulumi.ComponentResourceOptions) {
    super("consul:index:BackupBucket", name, {}, opts);
    const parent = { parent: this };
    const { prefix, days, tags } = args;
    const policyDocument = (statement: object) => stableJson({ Version: "1", Statement: [statement] });

    const bucket = new Bucket(
      name,
      {
        bucket: args.bucket,
        storageClass: "Standard",
        serverSideEncryptionRule: { sseAlgorithm: "AES256" },
        // Whoever took over a machine or a pod can overwrite a snapshot; it cannot take the earlier version away.
        versioning: { status: "Enabled" },
        lifecycleRules: [
          {
            id: "snapshots",
            enabled: true,
            prefix,
            expirations: [{ days }],
            noncurrentVersionExpirations: [{ days }],
            abortMultipartUploads: [{ days: 1 }],
          },
        ],
        tags,
      },
      { ...parent, protect: args.protect },
    );
    // Buckets are private by default; this also forbids to make it anything else.
    new BucketPublicAccessBlock(`${name}-private`, { bucket: bucket.bucket, blockPublicAccess: true }, parent);

    const role = typeof args.role === "string" ? undefined : createRole(args.role);
    this.roleName = role?.roleName ?? pulumi.output(args.role as string);
    this.roleArn = role?.arn;
    allowToPut(this.roleName);
    this.registerOutputs({});

    function createRole({ name: roleName, description, trust }: NewRole): Role {
      const assumeRolePolicyDocument = policyDocument(trust);
      return new Role(`${name}-role`, { roleName, description, assumeRolePolicyDocument }, parent);
    }

    function allowToPut(roleName: pulumi.Output<string>) {
      const policy = new Policy(
        `${name}-put`,
        {
          policyName: args.policyName,
          description: "Put snapshots of Consul, no more: not even read them",
          policyDocument: policyDocument({
            Action: ["oss:PutObject"],
            Effect: "Allow",
            Resource: [`acs:oss:*:*:${args.bucket}/${prefix}*`],
          }),
        },
        parent,
      );
      new RolePolicyAttachment(
        `${name}-put-attachment`,
        { policyName: policy.policyName, policyType: "Custom", roleName },
        parent,
      );
    }
  }
}
