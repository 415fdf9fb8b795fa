import { deepEqual, equal } from "assert/strict";
import { Patience } from "../../components/ecs/patience";
import { Reason } from "../../consul/quorum";

const restart = (server: string) => `restart it: \`aliyun ecs RebootInstance --InstanceId i-${server}\``;
const leaderless = (server: string): Reason => ({ server, what: "sees no leader", remedy: restart(server) });

describe("what people are told while the gate waits", () => {
  let seconds: number;
  let patience: Patience;
  beforeEach(() => {
    seconds = 1_000;
    patience = new Patience(() => seconds * 1000);
  });
  const look = (...reasons: Reason[]) => {
    patience.note(reasons);
    return patience.line(reasons);
  };

  it("is for how long a start has yet, and no remedy before the minute is over", () => {
    const three = ["consul-1", "consul-2", "consul-3"].map(leaderless);
    equal(
      look(...three),
      "waiting, a start has 60 s more: consul-1 sees no leader; consul-2 sees no leader; consul-3 sees no leader",
    );
    seconds += 41;
    equal(look(leaderless("consul-1")), "waiting, a start has 19 s more: consul-1 sees no leader");
    seconds += 19;
    equal(look(leaderless("consul-1")), `waiting: consul-1 sees no leader: ${restart("consul-1")}`);
  });

  it("begins anew for a server that was well meanwhile, and goes on for one that has another problem now", () => {
    look(leaderless("consul-1"), leaderless("consul-2"));
    seconds += 30;
    look(leaderless("consul-2"));
    seconds += 40;
    const other = { server: "consul-2", what: "is not a voter", remedy: "x" };
    equal(
      look(leaderless("consul-1"), other),
      "waiting, a start has 60 s more: consul-1 sees no leader; consul-2 is not a voter: x",
    );
  });

  it("has no time in it where nothing is to be done about it", () => {
    equal(look({ server: "", what: "leadership goes to consul-2" }), "waiting: leadership goes to consul-2");
  });

  it("has a line for each server in the end, and says of what is new that it may pass", () => {
    const stopped = { server: "consul-2", what: "(i-2) is Stopped", remedy: "start it" };
    look(leaderless("consul-1"));
    seconds += 70;
    const reasons = [leaderless("consul-1"), stopped];
    look(...reasons);
    seconds += 5;
    deepEqual(patience.lines(reasons, false), [
      `consul-1 sees no leader: ${restart("consul-1")}`,
      "consul-2 (i-2) is Stopped, for 5 s now; where that stays so for a minute: start it",
    ]);
    deepEqual(patience.lines([stopped], true), ["consul-2 (i-2) is Stopped: start it"]);
  });
});
