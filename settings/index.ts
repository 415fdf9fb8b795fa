export { CloudConfig, loadCloudConfig, loadSettings } from "./load";
export { Mistake, SettingsError } from "./mistakes";
export { parseSettings, schema } from "./schema";
export type * from "./schema";
