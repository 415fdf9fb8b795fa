import { deepEqual, equal, match, ok } from "assert/strict";
import { trustMark } from "../../consul/config";
import { gossipPattern, gossipTag, onlyAddsKeys, refusedKeys } from "../../consul/gossip";

describe("gossip keys", () => {
  const [one, two, three] = ["key one", "key two", "key three"];
  const mark = (...gossipKeys: string[]) => trustMark("ca", { gossipKeys, agentToken: "token" });

  describe("in three steps", () => {
    const allowed = [
      ["1", "1"],
      ["1", "1+2"],
      ["1+2", "2+1"],
      ["2+1", "2"],
      ["2", "2+3"],
      ["1", "1+2+3"],
      ["1+2+3", "2+1+3"],
      // The way back.
      ["2+1", "1+2"],
      ["1+2", "1"],
      ["existing-aa", "existing-aa+2"],
      ["existing-aa+2", "2+existing-aa"],
      ["2+existing-aa", "2"],
      // Releases before this one did not say which.
      ["existing", "existing-aa"],
      ["existing", "existing-aa+2"],
      ["7", "7+8"],
    ] as const;
    for (const [from, to] of allowed) {
      it(`may go from ${from} to ${to}`, () => {
        equal(refusedKeys(from, to), undefined);
      });
    }

    const refused = [
      ["1", "2", /^no node knows gossip key 2 yet: set consul:gossip to generation 1 with alsoAccepted \[2\] first/],
      ["1", "2+1", /^no node knows gossip key 2 yet/],
      ["1+2", "2", /^the nodes still start with gossip key 1: keep it in consul:gossip.alsoAccepted for this step/],
      ["1+2", "3+1", /^no node knows gossip key 3 yet/],
      ["existing", "2", /^no node knows gossip key 2 yet: set consul:gossip to generation 1 with alsoAccepted \[2\]/],
      ["existing-aa", "2+existing-aa", /^no node knows gossip key 2 yet/],
      ["existing-aa+2", "2", /^the nodes still start with gossip key 1/],
      [
        "existing-aa",
        "existing-bb",
        /^another key would be gossip key 1.*set consul:gossip.existingKey to the key that/,
      ],
      ["existing-aa+2", "2+existing-bb", /^another key would be gossip key 1/],
      ["existing-aa+2", "2+1", /^another key would be gossip key 1.*set consul:gossip.existingKey to the key that/],
      ["existing", "1", /^another key would be gossip key 1/],
      ["1", "existing-aa", /^another key would be gossip key 1.*take consul:gossip.existingKey away/],
    ] as const;
    for (const [from, to, message] of refused) {
      it(`may not go from ${from} to ${to}`, () => {
        match(refusedKeys(from, to) ?? "", message);
      });
    }
  });

  it("are only made known in the first step", () => {
    ok(onlyAddsKeys("1", "1+2") && onlyAddsKeys("existing", "existing-aa+2") && onlyAddsKeys("1+2", "1+2+3"));
    for (const [from, to] of [
      ["1+2", "2+1"],
      ["2+1", "2"],
      ["1+2", "1"],
    ] as const) {
      ok(!onlyAddsKeys(from, to), `${from} ${to}`);
    }
  });

  it("have a tag that gives no existing key away", () => {
    equal(gossipTag({ generation: 2, alsoAccepted: [1, 3] }), "2+1+3");
    match(gossipTag({ generation: 2, alsoAccepted: [1], existingKey: one }), /^2\+existing-[0-9a-f]{8}$/);
    equal(gossipTag({ generation: 2, alsoAccepted: [], existingKey: one }), "2");
  });

  it("find the nodes that would be alone after their next start", () => {
    const fine = (keys: string[], ...started: string[]) =>
      new RegExp(`^"trust":"${gossipPattern(keys)}"$`).test(`"trust":"${mark(...started)}"`);
    const steps: [string[], boolean[]][] = [
      // A node that was started with:  1      1+2   2+1   2     1+3    3
      [[one], [true, true, false, false, true, false]],
      [
        [one, two],
        [true, true, true, false, true, false],
      ],
      [
        [two, one],
        [false, true, true, true, false, false],
      ],
      [[two], [false, false, true, true, false, false]],
    ];
    const nodes = [[one], [one, two], [two, one], [two], [one, three], [three]];
    for (const [keys, expected] of steps) {
      deepEqual(
        nodes.map((started) => fine(keys, ...started)),
        expected,
        keys.join(),
      );
    }
    ok(!new RegExp(gossipPattern([one])).test('"external":"node"'));
  });
});
