export { CloudConfig, loadCloudConfig, loadSettings } from "./load";
export { Mistake, SettingsError } from "./mistakes";
export { jsonSchema, parseSettings, schema } from "./schema";
export type * from "./schema";
