import { Bucket } from "@pulumi/alicloud/oss/bucket";
import { BucketPublicAccessBlock } from "@pulumi/alicloud/oss/bucketPublicAccessBlock";
import { Policy } from "@pulumi/alicloud/ram/policy";
import { Role } from "@pulumi/alicloud/ram/role";
import { RolePolicyAttachment } from "@pulumi/alicloud/ram/rolePolicyAttachment";
import * as pulumi from "@pulumi/pulumi";
import { stableJson } from "../../consul/node";

export interface BackupBucketArgs {
  readonly bucket: string;
  /** Where the machines may put objects; ends with a slash. */
  readonly prefix: string;
  /** Days after which an object goes; what was overwritten or deleted goes as many days later. */
  readonly days: number;
  readonly datacenter: string;
  /** A role that the machines have already; one is made where there is none. */
  readonly roleName: string | undefined;
  readonly tags: Readonly<Record<string, string>>;
  /** Refuse to delete the bucket. */
  readonly protect: boolean;
}

/** An OSS bucket for snapshots, and a RAM role that may put objects below one prefix of it and do nothing else. */
export class BackupBucket extends pulumi.ComponentResource {
  /** The role for the machines. */
  readonly roleName: pulumi.Output<string>;

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
        // A machine that was taken over can overwrite a snapshot; it cannot take the earlier version away.
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

    this.roleName = args.roleName === undefined ? createRole() : pulumi.output(args.roleName);
    allowToPut(this.roleName);
    this.registerOutputs({});

    function createRole(): pulumi.Output<string> {
      const role = new Role(
        `${name}-role`,
        {
          roleName: `consul-${args.datacenter}-servers`,
          description: "Consul servers: put snapshots into their bucket",
          assumeRolePolicyDocument: policyDocument({
            Action: "sts:AssumeRole",
            Effect: "Allow",
            Principal: { Service: ["ecs.aliyuncs.com"] },
          }),
        },
        parent,
      );
      return role.roleName;
    }

    function allowToPut(roleName: pulumi.Output<string>) {
      const policy = new Policy(
        `${name}-put`,
        {
          policyName: `consul-${args.datacenter}-snapshots`,
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
