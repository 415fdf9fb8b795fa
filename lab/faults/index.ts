// What goes wrong with a Consul cluster, done to a real one: a file for each kind of fault. Each experiment takes a
// healthy cluster, measures while it breaks the cluster, and leaves it healthy. What the figures ought to be is for
// `npm run drill` and the tests to say.
export { accident, spread } from "./accident";
export { restartAgents } from "./agents";
export { badClients } from "./bad-clients";
export { killAll } from "./blackout";
export { killLeader } from "./leader";
export { type Lookups, ways } from "./lookups";
export { killTwo, loseData, pauseLeader } from "./servers";
