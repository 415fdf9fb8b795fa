/** The settings by which pods get their image. */
export interface ImageSettings {
  readonly imageRegistry: string;
  /** "" for none. */
  readonly imageDigest: string;
  readonly imagePullSecrets: readonly string[];
  readonly version: string;
}

/** What a pod's nodes pull, and how. */
export interface PodImage {
  readonly name: string;
  /** Names of Secrets of the pod's namespace. */
  readonly pullSecrets: readonly string[];
}

/** The image with Consul, curl and a shell that every pod runs. @param own the image of one block of the settings */
export function consulImage(settings: ImageSettings, own?: string): PodImage {
  const { imageRegistry, imageDigest, imagePullSecrets, version } = settings;
  const digest = imageDigest === "" ? "" : `@${imageDigest}`;
  return { name: own ?? `${imageRegistry}/consul:${version}${digest}`, pullSecrets: imagePullSecrets };
}
