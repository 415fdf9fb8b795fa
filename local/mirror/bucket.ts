/** A place in an OSS bucket: what follows oss://. */
export interface BucketPlace {
  readonly bucket: string;
  /** Without slashes at its ends; "" for the bucket itself. */
  readonly prefix: string;
}

/** Reads oss://bucket/prefix. @returns undefined where the text is no such place */
export function bucketPlace(text: string): BucketPlace | undefined {
  const [, bucket, prefix = ""] = /^oss:\/\/([a-z0-9][a-z0-9-]{1,61}[a-z0-9])((?:\/[\w.~+-]+)*)\/?$/.exec(text) ?? [];
  return bucket === undefined ? undefined : { bucket, prefix: prefix.slice(1) };
}

/** Puts files into a bucket, with the credentials that the cloud's own tools find: environment, profile, RAM role. */
export async function bucketWriter(
  { bucket, prefix }: BucketPlace,
  region: string,
  endpoint: string | undefined,
): Promise<(name: string, body: Uint8Array) => Promise<void>> {
  // Loaded here and not above: nothing else needs them.
  const { default: Credential } = await import("@alicloud/credentials");
  const { default: Oss } = await import("ali-oss");
  const credential = new Credential();
  const { accessKeyId = "", accessKeySecret = "", securityToken } = await credential.getCredential();
  const client = new Oss({
    bucket,
    region: `oss-${region}`,
    endpoint: endpoint ?? `https://oss-${region}.aliyuncs.com`,
    accessKeyId,
    accessKeySecret,
    authorizationV4: true,
    timeout: "10m",
    // The upload is over long before temporary credentials are; without this the library complains that they may end.
    ...(securityToken
      ? {
          stsToken: securityToken,
          refreshSTSToken: () => Promise.resolve({ accessKeyId, accessKeySecret, stsToken: securityToken }),
        }
      : {}),
  });
  return async (name, body) => {
    const key = [prefix, name].filter(Boolean).join("/");
    try {
      await client.put(key, Buffer.from(body));
    } catch (error) {
      const { code = "", message } = error as { code?: string; message: string };
      throw new Error(
        `cannot write oss://${bucket}/${key}: ${code} ${message}; the credentials need oss:PutObject there`,
        {
          cause: error,
        },
      );
    }
  };
}
