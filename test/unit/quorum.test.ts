import { deepEqual, equal, match, ok } from "assert/strict";
import { assess, passes, Server, told, Verdict } from "../../consul/quorum";
import { refusedAuthorities, refusedConsent, refusedStep, refusedVersion, setTo } from "../../consul/upgrade";
import { MutableSample } from "../../components/ecs/fake-cloud";
import { leaderAddress, names, wellServers } from "./servers";

function reasons(verdict: Verdict): readonly string[] {
  if (verdict.ok) return [];
  return verdict.reasons.map((reason) => [told(reason), reason.remedy].filter(Boolean).join(": "));
}

/** The looks of one server. The nth look and all later ones are broken. */
const only =
  (name: string, change: (look: MutableSample) => void, from = 0) =>
  (look: MutableSample, who: string, n: number) => {
    if (who === name && n >= from) change(look);
  };

describe("whether a server may go down", () => {
  it("may, while every other one is a healthy voter that has caught up", () => {
    for (const goes of [...names, undefined]) {
      const verdict = assess(wellServers(), { candidate: goes });
      ok(verdict.ok);
      equal(verdict.leader, "consul-3");
      equal(verdict.raftIds.get("consul-2"), "id-of-consul-2");
      deepEqual([...new Set(verdict.versions.values())], ["1.22.3"]);
    }
  });

  it("may without machines to look at, as in a cluster or here", () => {
    ok(assess(wellServers().map(({ name, view }) => ({ name, view }))).ok);
  });

  it("does not need the answer of the one that goes", () => {
    const servers = wellServers().map((server) =>
      server.name === "consul-1" ? { ...server, view: undefined } : server,
    );
    ok(assess(servers, { candidate: "consul-1" }).ok);
    ok(!assess(servers, { candidate: "consul-2" }).ok);
    ok(!assess(servers).ok);
  });

  describe("when three are to become five", () => {
    const missing = (name: string): Server => ({ name, machine: { id: "none", status: "missing" } });
    const five = (servers = wellServers()) => [...servers, missing("consul-4"), missing("consul-5")];

    it("may, while two are yet to be made", () => {
      for (const goes of names) ok(assess(five(), { candidate: goes }).ok);
    });

    it("are not all well before these are there", () => {
      equal(reasons(assess(five())).join("\n"), "consul-4 has no machine: none\nconsul-5 has no machine: none");
    });

    it("may not, where one of them was there and was lost: raft still counts it", () => {
      const lost = { ID: "id-5", Node: "consul-5", Address: "10.0.0.5:8300", Leader: false, Voter: true, LastIndex: 0 };
      const known = wellServers((look) => look.raft?.Servers.push(lost));
      match(reasons(assess(five(known), { candidate: "consul-1" })).join("\n"), /consul-5 has no machine/);
    });

    it("may not, where fewer than three are left", () => {
      const two = wellServers((look) => look.raft?.Servers.splice(1, 1)).filter(({ name }) => name !== "consul-2");
      const verdict = assess([...two, missing("consul-2")], { candidate: "consul-1" });
      deepEqual(reasons(verdict), ["consul-2 has no machine: none"]);
    });

    it("may not, where nobody says whom raft knows", () => {
      const blind = wellServers((look) => (look.raft = null));
      match(reasons(assess(five(blind), { candidate: "consul-1" })).join("\n"), /consul-4 has no machine/);
      const silent = wellServers().map(({ name, machine }) => ({ name, machine }));
      match(reasons(assess(five(silent), { candidate: "consul-1" })).join("\n"), /consul-4 has no machine/);
    });
  });

  /** For each case: what is wrong, the servers' looks, the server that is to go down, the reasons. */
  const table: [string, (servers: Server[]) => Server[], string | undefined, RegExp][] = [];
  const looks = (
    what: string,
    change: (look: MutableSample, name: string, n: number) => void,
    goes: string | undefined,
    said: RegExp,
  ) => table.push([what, () => wellServers(change), goes, said]);
  const machine = (what: string, status: string, goes: string, said: RegExp) =>
    table.push([
      what,
      (servers) => servers.map((s) => (s.name === "consul-2" ? { ...s, machine: { id: "i-2", status } } : s)),
      goes,
      said,
    ]);

  machine(
    "another machine is stopped",
    "Stopped",
    "consul-1",
    /^consul-2 \(i-2\) is Stopped: start it: `aliyun ecs StartInstance --InstanceId i-2`$/,
  );
  machine("the machine itself is stopped already", "Stopped", "consul-2", /^consul-2 \(i-2\) is Stopped: start it/);
  machine("another machine is just starting", "Starting", "consul-1", /^consul-2 \(i-2\) is Starting$/);
  machine("another machine is gone", "missing", "consul-1", /^consul-2 has no machine: i-2$/);
  for (const [what, view] of [
    ["a server does not answer", { problem: "its answer did not come" }],
    ["a server was not asked", undefined],
    [
      "a server's answers stopped midway",
      {
        samples: wellServers()
          .flatMap(({ view }) => (view && "samples" in view ? view.samples.slice(0, 1) : []))
          .slice(0, passes.samples - 1),
      },
    ],
  ] as const) {
    table.push([
      what,
      (servers) => servers.map((s) => (s.name === "consul-2" ? { ...s, view } : s)),
      "consul-1",
      /^consul-2 .*does not answer.*RebootInstance --InstanceId i-consul-2`$/,
    ]);
  }
  looks(
    "a server is paused: its machine answers, its Consul does not",
    only("consul-2", (look) =>
      Object.assign(look, { leader: null, health: null, raft: null, members: null, self: null }),
    ),
    "consul-1",
    /^consul-2 runs, but its Consul does not answer: restart it: .*RebootInstance --InstanceId i-consul-2`$/,
  );
  for (const [unit, said] of [
    ["start-pre", /^consul-2 is installing Consul: its journal says why: `journalctl -u consul -u consul-disk`$/],
    ["auto-restart", /^consul-2 starts its Consul again and again: its journal/],
    ["dead", /^consul-2 has not started its Consul yet: its journal/],
    ["running", /^consul-2 runs, but its Consul does not answer: restart it: /],
  ] as const) {
    looks(
      `a server's Consul does not answer, and systemd says ${unit}`,
      only("consul-2", (look) =>
        Object.assign(look, { leader: null, health: null, raft: null, members: null, self: null, unit }),
      ),
      "consul-1",
      said,
    );
  }
  looks(
    "a server answers only half",
    only("consul-2", (look) => (look.self = null), 1),
    "consul-1",
    /^consul-2 runs, but its Consul does not answer/,
  );
  looks(
    "there is no leader",
    (look) => (look.leader = ""),
    "consul-1",
    /^consul-2 sees no leader.*\nconsul-3 sees no leader/,
  );
  looks(
    "the leader was lost in the last look",
    only("consul-2", (look) => (look.leader = ""), passes.samples - 1),
    "consul-1",
    /^consul-2 sees no leader/,
  );
  looks(
    "a server is lagging by its own account",
    only("consul-2", (look) => look.self && (look.self.applied_index = "99")),
    "consul-1",
    /^consul-2 has yet to catch up/,
  );
  looks(
    "a server was lagging in the first look",
    (look, name, n) => {
      if (name === "consul-2" && n === 0 && look.self) look.self.applied_index = "99";
    },
    "consul-3",
    /^consul-2 has yet to catch up/,
  );
  looks(
    "a server is a candidate",
    only("consul-2", (look) => look.self && (look.self.state = "Candidate")),
    "consul-1",
    /^consul-2 is in raft state Candidate/,
  );
  looks(
    "three are alive, one has no vote yet",
    (look) => {
      for (const server of look.raft?.Servers ?? []) if (server.Node === "consul-2") server.Voter = false;
    },
    "consul-1",
    /^consul-2 is not a voter/,
  );
  looks(
    "the one that is to go has no vote",
    (look) => {
      for (const server of look.raft?.Servers ?? []) if (server.Node === "consul-1") server.Voter = false;
    },
    "consul-1",
    /^consul-1 is not a voter/,
  );
  looks(
    "a server was pruned from raft",
    (look) => {
      if (look.raft) look.raft.Servers = look.raft.Servers.filter(({ Node }) => Node !== "consul-2");
    },
    "consul-1",
    /^consul-2 is not a voter/,
  );
  looks(
    "raft holds a server of former days",
    (look) => {
      look.raft?.Servers.push({
        ID: "old-id",
        Node: "old",
        Address: "10.0.0.9:8300",
        Leader: false,
        Voter: true,
        LastIndex: 100,
      });
    },
    "consul-1",
    /^old is in raft and none of ours: `consul operator raft remove-peer -id=old-id`$/,
  );
  looks(
    "autopilot has no list of servers yet",
    (look) => Object.assign(look, { health: { Servers: null } }),
    "consul-1",
    /^consul-2 is not healthy: restart it: .*RebootInstance --InstanceId i-consul-2`$/m,
  );
  looks(
    "autopilot finds one unhealthy",
    (look) => {
      for (const server of look.health?.Servers ?? []) if (server.Name === "consul-2") server.Healthy = false;
    },
    "consul-1",
    /^consul-2 is not healthy: restart it: .*RebootInstance --InstanceId i-consul-2`$/,
  );
  looks(
    "the one that is to go was down before",
    (look) => {
      for (const server of look.health?.Servers ?? []) if (server.Name === "consul-1") server.SerfStatus = "failed";
      for (const member of look.members ?? []) if (member.Name === "consul-1") member.Status = 4;
    },
    "consul-1",
    /^consul-1 is not healthy, is not alive for consul-2, is not alive for consul-3: restart it: .*i-consul-1`$/,
  );
  looks(
    "one is not alive for another, whatever the leader thinks",
    only("consul-2", (look) => {
      for (const member of look.members ?? []) if (member.Name === "consul-3") member.Status = 4;
    }),
    "consul-1",
    /^consul-3 is not alive for consul-2/,
  );
  looks(
    "the servers follow two leaders",
    only("consul-2", (look) => (look.leader = leaderAddress("consul-1"))),
    "consul-1",
    /^the servers do not agree on a leader: 10.0.0.1:8300, 10.0.0.3:8300$/,
  );
  looks(
    "the leader is none of raft's servers",
    (look) => (look.leader = "10.0.0.9:8300"),
    "consul-1",
    /do not agree on a leader/,
  );
  looks(
    "raft has no leader to compare with",
    (look) => {
      for (const server of look.raft?.Servers ?? []) server.Leader = false;
    },
    "consul-1",
    /has yet to catch up/,
  );

  for (const [what, change, goes, said] of table) {
    it(`may not, where ${what}`, () => {
      match(reasons(assess(change(wellServers()), { candidate: goes })).join("\n"), said);
    });
  }

  it("does not wait for what stays as it is: a machine that is stopped or gone", () => {
    for (const [status, final] of [
      ["Stopped", true],
      ["missing", true],
      ["Starting", false],
      ["Stopping", false],
    ] as const) {
      const verdict = assess(
        wellServers().map((s) => (s.name === "consul-2" ? { ...s, machine: { id: "i-2", status } } : s)),
        { candidate: "consul-1" },
      );
      ok(!verdict.ok);
      equal(verdict.final, final, status);
    }
  });

  it("says of each server once what is wrong, and blames no one else for one that does not answer", () => {
    const servers = wellServers((look) => {
      for (const member of look.members ?? []) if (member.Name === "consul-2") member.Status = 4;
    });
    const silent = servers.map((s) => (s.name === "consul-2" ? { ...s, view: { problem: "exit 1" } } : s));
    equal(reasons(assess(silent, { candidate: "consul-1" })).length, 1);
    match(reasons(assess(silent, { candidate: "consul-1" }))[0] ?? "", /^consul-2 does not answer \(exit 1\)/);
  });
});

describe("a step between versions", () => {
  for (const [from, to] of [
    ["1.22.6", "1.22.6"],
    ["1.22.3", "1.22.6"],
    ["1.20.9", "1.22.0"],
    ["1.21.0", "1.22.6"],
    ["1.9.0", "1.11.0"],
    ["1.22.3+ent", "1.22.5"],
    // 2.0 came after 1.22.
    ["1.22.0", "2.0.0"],
    ["1.21.5", "2.0.3"],
    ["1.22.6", "2.1.0"],
    ["2.0.3", "2.2.0"],
    ["2.0.9", "2.0.10"],
  ] as const) {
    it(`from ${from} to ${to} is taken`, () => equal(refusedVersion(from, to), undefined));
  }
  for (const [from, to, said] of [
    ["1.22.6", "1.22.5", /cannot go back from 1.22.6 to 1.22.5/],
    ["1.22.0", "1.21.9", /cannot go back/],
    ["1.22.10", "1.22.9", /cannot go back/],
    ["2.0.0", "1.22.3", /cannot go back/],
    ["1.20.1", "2.0.0", /too far for one step: set consul:version to 1.22.x first/],
    ["1.21.5", "2.1.0", /too far for one step: set consul:version to 2.0.x first/],
    ["1.22.6", "2.2.0", /too far for one step: set consul:version to 2.1.x first/],
    ["2.0.0", "2.3.0", /set consul:version to 2.2.x first/],
    ["1.9.0", "1.12.0", /set consul:version to 1.11.x first/],
    ["2.1.0", "2.0.9", /cannot go back/],
  ] as const) {
    it(`from ${from} to ${to} is refused`, () => match(refusedVersion(from, to) ?? "", said));
  }
});

describe("a step between certificate authorities", () => {
  for (const [from, to] of [
    ["1", "1"],
    ["1", "1+2"],
    ["1+2", "2+1"],
    ["2+1", "2"],
    ["1+2", "1"],
    ["2+1", "1+2"],
  ] as const) {
    it(`from ${from} to ${to} is taken`, () => equal(refusedAuthorities(from, to), undefined));
  }
  for (const [from, to, said] of [
    [
      "1",
      "2",
      /nobody trusts certificate authority 2 yet: set consul:certificates to caGeneration 1 with caAlsoTrusted \[2\] first/,
    ],
    ["1", "2+1", /nobody trusts certificate authority 2 yet/],
    ["1+2", "2", /still present certificates of authority 1: keep it in certificates.caAlsoTrusted/],
    ["1+2", "3+1", /nobody trusts certificate authority 3/],
  ] as const) {
    it(`from ${from} to ${to} is refused`, () => match(refusedAuthorities(from, to) ?? "", said));
  }
});

describe("the generation of the agents' token", () => {
  const to = (agentGeneration: number) =>
    setTo({
      version: "1.22.3",
      certificates: { caGeneration: 1, caAlsoTrusted: [] },
      gossip: { generation: 1, alsoAccepted: [] },
      tokens: { agentGeneration },
    });

  it("stays or rises, and is no reason where nothing is known of it, as after an older release", () => {
    for (const [from, wanted] of [
      [to(1), to(1)],
      [to(1), to(2)],
      [{}, to(1)],
    ] as const) {
      equal(refusedStep(from, wanted), undefined);
    }
  });

  it("does not fall: whoever has the token of later could go on using it", () => {
    match(
      refusedStep(to(3), to(2)) ?? "",
      /cannot go back from generation 3 to 2: .*consul:tokens\.agentGeneration to 4/,
    );
  });
});

describe("the servers' consent to a change", () => {
  const now = new Date("2026-11-30T03:00:00Z");

  it("holds for ten minutes, and where nobody knows when it was given, as with an older release", () => {
    for (const agreed of ["2026-11-30T02:50:00Z", "2026-11-30T03:00:20Z", undefined]) {
      equal(refusedConsent(agreed, now), undefined, agreed);
    }
    match(
      refusedConsent("2026-11-30T02:49:59Z", now) ?? "",
      /^they agreed to this change at 2026-11-30T02:49:59Z, in an/,
    );
  });
});
