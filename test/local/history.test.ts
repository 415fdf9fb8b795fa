import { deepEqual, equal, rejects } from "assert/strict";
import { History, linearizable, Operation } from "../../lab/matrix/history";
import { buildTool } from "../../tools/build";

type Short = readonly [kind: "write" | "read", value: string | null, call: number, end: number | null, key?: string];

const operations = (...all: Short[]): Operation[] =>
  all.map(([kind, value, call, end, key = "k"], client) => ({ client, kind, key, value, call, return: end }));

describe("the checker of histories", function () {
  this.timeout("10m"); // the first build

  before(async () => {
    await buildTool("porcupine", console.error);
  });

  const verdict = async (...all: Short[]) => (await linearizable(operations(...all))).result;

  it("finds nothing wrong with what one key after another can have been", async () => {
    equal(await verdict(["read", null, 0, 1], ["write", "a", 2, 3], ["read", "a", 4, 5]), "ok");
    // Both orders of what happens at once are good, as long as everybody sees the same one.
    equal(
      await verdict(["write", "a", 0, 9], ["write", "b", 0, 9], ["read", "a", 10, 11], ["read", "a", 12, 13]),
      "ok",
    );
    equal(await verdict(["write", "a", 0, 9], ["read", null, 1, 2], ["read", "a", 3, 4]), "ok");
  });

  it("takes a write whose outcome nobody knows for done at any time after it began, or never", async () => {
    equal(await verdict(["write", "a", 0, 1], ["write", "b", 2, null], ["read", "a", 5, 6]), "ok");
    equal(await verdict(["write", "a", 0, 1], ["write", "b", 2, null], ["read", "a", 5, 6], ["read", "b", 7, 8]), "ok");
    // But once it was seen, it has happened.
    const seen: Short[] = [
      ["write", "a", 0, 1],
      ["write", "b", 2, null],
      ["read", "b", 5, 6],
      ["read", "a", 7, 8],
    ];
    equal(await verdict(...seen), "broken");
    equal(await verdict(["read", "b", 0, 1], ["write", "b", 2, null]), "broken");
  });

  it("says that a history is broken", async () => {
    const broken: Readonly<Record<string, readonly Short[]>> = {
      "an acknowledged write is lost": [
        ["write", "a", 0, 1],
        ["read", null, 2, 3],
      ],
      "an acknowledged write is lost, and the one before is there": [
        ["write", "a", 0, 1],
        ["write", "b", 2, 3],
        ["read", "a", 4, 5],
      ],
      "a read goes back in time": [
        ["write", "a", 0, 1],
        ["write", "b", 2, 9],
        ["read", "b", 3, 4],
        ["read", "a", 5, 6],
      ],
      "clients disagree on an order": [
        ["write", "a", 0, 9],
        ["write", "b", 0, 9],
        ["read", "a", 10, 11],
        ["read", "b", 12, 13],
        ["read", "a", 14, 15],
      ],
      "a value that nobody wrote": [
        ["write", "a", 0, 1],
        ["read", "x", 2, 3],
      ],
      "a write that is seen before it begins": [
        ["read", "a", 0, 1],
        ["write", "a", 2, 3],
      ],
    };
    for (const [what, history] of Object.entries(broken)) equal(await verdict(...history), "broken", what);
  });

  it("names the keys that are wrong and no others", async () => {
    const history = operations(
      ["write", "a", 0, 1, "good"],
      ["read", "a", 2, 3, "good"],
      ["write", "a", 0, 1, "bad"],
      ["read", null, 2, 3, "bad"],
    );
    deepEqual(await linearizable(history), { result: "broken", operations: 4, keys: ["bad"] });
  });

  it("refuses what is no history", async () => {
    await rejects(linearizable(operations(["read", "a", 0, null])), /operation 0 of the history: it reads and has no/);
    await rejects(linearizable(operations(["write", "a", 5, 1])), /it returns before it is called/);
    await rejects(linearizable("nonsense" as unknown as Operation[]), /the history is no JSON of the expected form/);
  });

  it("is given what clients did: failed reads not at all, failed writes as unknown unless they never happened", async () => {
    const history = new History();
    const store = new Map<string, string>();
    const set = (value: string) => () => Promise.resolve(store.set("k", value));
    const get = () => Promise.resolve(store.get("k") ?? null);
    const failure = new Error("no");
    const fail = () => Promise.reject(failure);
    await history.read(1, "k", get);
    await history.write(1, "k", "a", set("a"));
    await rejects(history.write(1, "k", "b", fail), failure);
    await rejects(
      history.write(1, "k", "c", fail, (error) => error === failure),
      failure,
    );
    await rejects(history.read(1, "k", fail), failure);
    await history.read(1, "k", get);
    deepEqual(
      history.operations.map(({ kind, value, return: end }) => [kind, value, end !== null]),
      [
        ["read", null, true],
        ["write", "a", true],
        ["write", "b", false],
        ["read", "a", true],
      ],
    );
    // The unknown write is left out: nobody read what it wrote.
    deepEqual(await linearizable(history.operations), { result: "ok", operations: 3, keys: [] });
    store.clear();
    await history.read(1, "k", get);
    equal((await linearizable(history.operations)).result, "broken");
  });
});
