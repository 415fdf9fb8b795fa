import { explainLeftovers } from "./components/leftovers";
import { EcsApi } from "./components/ecs/ecs-api";
import { loadCloudConfig, loadSettings } from "./settings";
import { consulStack } from "./stacks/consul";
import type { ConsulOutputs } from "./stacks/outputs";

// Pulumi's launcher translates stack traces by source maps, and Pulumi takes a stack trace for every promise: together
// half of this program's CPU. Sucrase keeps line numbers, so there is nothing here to translate.
Reflect.deleteProperty(Error, "prepareStackTrace");

explainLeftovers();

const outputs: ConsulOutputs = consulStack(loadSettings(), new EcsApi(loadCloudConfig()));

export = outputs;
