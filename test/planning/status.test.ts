import { describe, expect, it } from "vitest";
import type { Pool } from "../../shared/planning/model.ts";
import { type PassFailure, reportStatus, type StatusInput, showsFailure } from "../../shared/planning/status.ts";
import { judge } from "../../shared/planning/verdict.ts";
import { aPool, aPoolWith, aSpec, aVm, deepFreeze, type Json, NOW, someVms } from "../support/builders.ts";

const report = (pool: Pool, overrides: Partial<StatusInput> = {}) =>
  reportStatus(
    deepFreeze({ now: NOW, pool, verdict: judge(pool), members: someVms(3), failures: [], by: "test", ...overrides }),
  );
const withStatus = (status: Json, spec: Json = {}) => aPoolWith(spec, { status });
const scaleOut = (message: string): PassFailure => ({ during: "scaleOut", message });

const EARLIER = "2026-11-22T08:00:00Z";
const TIME = "2026-11-22T10:00:00Z";
const SETTLED: Json = { replicas: 3, readyReplicas: 3, labelSelector: "app=web", conditions: [] };
const PAUSED: Json = {
  type: "ReplicaPaused",
  status: "True",
  lastTransitionTime: EARLIER,
  reason: "SuccessfulPaused",
  message: "Pool controller is paused",
};
/** What another deployment has to say, for a while. */
const OTHERS: Json = {
  type: "SecondWriter",
  status: "True",
  lastTransitionTime: TIME,
  reason: "OtherDeployment",
  message: "two of them",
};
const FAILED: Json = {
  type: "ReplicaFailure",
  status: "True",
  lastTransitionTime: EARLIER,
  reason: "FailedScaleOut",
  message: "error during scale out: quota",
};

describe("the message of a failure", () => {
  const failing = (message: Json | string | null) => withStatus({ ...SETTLED, conditions: [{ ...FAILED, message }] });

  it.each([
    ["5 of 7 used, request 8f3e", "6 of 7 used, request 77a0"],
    ["dial tcp 10.0.0.1:41002: refused", "dial tcp 10.0.0.1:51877: refused"],
  ])("stays while only numbers differ: %s, then %s", (before, after) => {
    const { status, changed } = report(failing(`error during scale out: ${before}`), { failures: [scaleOut(after)] });
    expect(status.conditions).toMatchObject([{ message: `error during scale out: ${before}` }]);
    expect(changed).toBe(false);
  });

  it.each([
    ['instancetype "u1.medium" not found', 'instancetype "cx1.large" not found'],
    ["disks[0] has no volume", "disks[7] has no volume"],
  ])("is the new one when more than numbers differ: %s, then %s", (before, after) => {
    const { status } = report(failing(`error during scale out: ${before}`), { failures: [scaleOut(after)] });
    expect(status.conditions).toMatchObject([{ message: `error during scale out: ${after}` }]);
  });

  it("is the new one when a number of the spec is what was changed", () => {
    const illegal = (maxUnavailable: string) => ({ ...SETTLED, maxUnavailable });
    const [before, after] = ["500%", "300%"].map((percent) => {
      const pool = aPoolWith(illegal(percent));
      return report(pool, { members: undefined }).status.conditions?.[0];
    });
    const pool = aPoolWith(illegal("300%"), { status: { ...SETTLED, conditions: [before] } });
    expect(report(pool, { members: undefined }).status.conditions).toMatchObject([{ message: after?.message }]);
    expect(before?.message).not.toBe(after?.message);
  });

  it.each([["quota is used up"], [null]])(
    "is the new one when words differ, or there was none: %j, then another",
    (before) => {
      const { status, changed } = report(failing(before), { failures: [scaleOut("denied")] });
      expect(status.conditions).toMatchObject([{ message: "error during scale out: denied" }]);
      expect(changed).toBe(true);
    },
  );
});

describe("the counts", () => {
  it("are those of live machines", () => {
    const members = [aVm(0), aVm(1, { ready: false }), aVm(2, { terminating: true })];
    expect(report(aPool(), { members }).status).toMatchObject({ replicas: 2, readyReplicas: 1 });
  });

  it("leave out a terminating machine that is still ready (D38)", () => {
    expect(report(aPool(), { members: [aVm(0, { terminating: true })] }).status).toMatchObject({
      replicas: 0,
      readyReplicas: 0,
    });
  });

  it("stay as they were when the machines were not read", () => {
    const pool = withStatus(SETTLED, { maxUnavailable: "0%" });
    expect(report(pool, { members: undefined }).status).toMatchObject({
      replicas: 3,
      readyReplicas: 3,
      labelSelector: "app=web",
    });
  });

  it("are 0 when the machines were never read", () => {
    const pool = aPool({ spec: null });
    expect(report(pool, { members: undefined }).status).toMatchObject({
      replicas: 0,
      readyReplicas: 0,
      labelSelector: "",
    });
  });

  it("come with the selector in its canonical text", () => {
    const selector = { matchLabels: { tier: "front", app: "web" } };
    const template = { metadata: { labels: { app: "web", tier: "front" } }, spec: { template: {} } };
    expect(report(aPoolWith({ selector, virtualMachineTemplate: template })).status.labelSelector).toBe(
      "app=web,tier=front",
    );
  });
});

describe("whether there is something to write", () => {
  const CASES: readonly { readonly it: string; readonly pool: Pool; readonly changed: boolean }[] = [
    { it: "yes for a pool without status", pool: aPool(), changed: true },
    { it: "no when all is said", pool: withStatus(SETTLED), changed: false },
    {
      it: "no when conditions are absent instead of empty",
      pool: withStatus({ ...SETTLED, conditions: undefined }),
      changed: false,
    },
    { it: "yes when a count differs", pool: withStatus({ ...SETTLED, readyReplicas: 2 }), changed: true },
    { it: "yes when a count is absent", pool: withStatus({ ...SETTLED, replicas: undefined }), changed: true },
    {
      it: "yes when the selector's text differs",
      pool: withStatus({ ...SETTLED, labelSelector: "app=db" }),
      changed: true,
    },
    { it: "yes when a condition must go", pool: withStatus({ ...SETTLED, conditions: [PAUSED] }), changed: true },
    {
      it: "no when conditions are in another order",
      pool: withStatus({ ...SETTLED, conditions: [PAUSED, OTHERS] }, { paused: true }),
      changed: false,
    },
    {
      it: "no when conditions are in their own order",
      pool: withStatus({ ...SETTLED, conditions: [OTHERS, PAUSED] }, { paused: true }),
      changed: false,
    },
    {
      it: "yes when a condition says something else",
      pool: withStatus({ ...SETTLED, conditions: [{ ...PAUSED, message: "on holiday" }] }, { paused: true }),
      changed: true,
    },
    {
      it: "no when a condition differs by fields that say nothing",
      pool: withStatus({ ...SETTLED, conditions: [{ ...PAUSED, lastProbeTime: null }] }, { paused: true }),
      changed: false,
    },
  ];
  for (const { it: name, pool, changed } of CASES) {
    it(name, () => expect(report(pool).changed).toBe(changed));
  }

  it("no though not every machine is ready, once that is said (D25)", () => {
    const members = [aVm(0), aVm(1), aVm(2, { ready: false })];
    expect(report(withStatus({ ...SETTLED, readyReplicas: 2 }), { members }).changed).toBe(false);
  });

  it("no after it was written", () => {
    const { status } = report(aPoolWith({ paused: true }), { failures: [scaleOut("quota")] });
    const after = report(withStatus({ ...status }, { paused: true }), {
      failures: [scaleOut("quota")],
      now: NOW + 600_000,
    });
    expect(after).toMatchObject({ changed: false, announcements: [] });
  });
});

describe("the condition of a paused pool", () => {
  it("appears with the time, and is told once", () => {
    const { status, announcements } = report(aPoolWith({ paused: true }));
    expect(status.conditions).toEqual([{ ...PAUSED, lastTransitionTime: TIME }]);
    expect(announcements).toMatchObject([{ type: "Normal", reason: "SuccessfulPaused", message: "Pool is paused" }]);
  });

  it("keeps the time since when it holds, and is not told again", () => {
    const { status, announcements } = report(withStatus({ ...SETTLED, conditions: [PAUSED] }, { paused: true }));
    expect(status.conditions).toEqual([PAUSED]);
    expect(announcements).toEqual([]);
  });

  it("goes when the pool is resumed, which is told once", () => {
    const { status, announcements } = report(withStatus({ ...SETTLED, conditions: [PAUSED] }));
    expect(status.conditions).toEqual([]);
    expect(announcements).toMatchObject([{ type: "Normal", reason: "SuccessfulResume", message: "Pool is unpaused" }]);
    expect(report(withStatus(SETTLED)).announcements).toEqual([]);
  });

  it("stays while the pool is illegal, as nobody knows", () => {
    const pool = withStatus({ ...SETTLED, conditions: [PAUSED] }, { maxUnavailable: 0 });
    expect(report(pool, { members: undefined }).status.conditions).toContainEqual(PAUSED);
  });
});

describe("the condition of a failure", () => {
  const FAILURES: readonly (readonly [PassFailure["during"], string, string])[] = [
    ["reading", "FailedRead", "error while reading quota"],
    ["scaleOut", "FailedScaleOut", "error during scale out: quota"],
    ["scaleIn", "FailedScaleIn", "error during scale in: quota"],
    ["update", "FailedUpdate", "error during VM update: quota"],
    ["pruning", "FailedRevisionPruning", "error while pruning vmpool revisions: quota"],
    ["upkeep", "FailedUpdate", "error during upkeep of machines: quota"],
  ];
  for (const [during, reason, message] of FAILURES) {
    it(`names ${reason}`, () => {
      const { status, announcements } = report(aPool(), { failures: [{ during, message: "quota" }] });
      expect(status.conditions).toEqual([
        { type: "ReplicaFailure", status: "True", lastTransitionTime: TIME, reason, message },
      ]);
      expect(announcements).toMatchObject([{ type: "Warning", reason, message }]);
    });
  }

  const failing = (...failures: readonly PassFailure[]) => report(aPool(), { failures }).status.conditions;

  it("comes with three messages, each once, and how many more there are", () => {
    const three = ["a", "b", "a", "c"].map(scaleOut);
    expect(failing(...three)).toMatchObject([{ message: "error during scale out: a; b; c" }]);
    const more = ["d", "e"].map(scaleOut);
    expect(failing(...three, ...more)).toMatchObject([{ message: "error during scale out: a; b; c; and 2 more" }]);
  });

  it("is told anew when only its reason, or only its message, is another", () => {
    const told = (failure: PassFailure) =>
      report(withStatus({ ...SETTLED, conditions: [FAILED] }), { failures: [failure] }).announcements.length;
    expect(told(scaleOut("quota"))).toBe(0);
    expect(told(scaleOut("no quota"))).toBe(1);
    const reason = withStatus({ ...SETTLED, conditions: [{ ...FAILED, reason: "FailedScaleIn" }] });
    expect(report(reason, { failures: [scaleOut("quota")] }).announcements).toHaveLength(1);
  });

  it("is told, and since now, when the condition before was not in force", () => {
    const over = withStatus({ ...SETTLED, conditions: [{ ...FAILED, status: "False" }] });
    const { status, announcements } = report(over, { failures: [scaleOut("quota")] });
    expect([status.conditions?.[0]?.lastTransitionTime, announcements.length]).toEqual([TIME, 1]);
  });

  it("keeps its time, and takes the current reason, which is told (D38)", () => {
    const pool = withStatus({ ...SETTLED, conditions: [FAILED] });
    const { status, announcements } = report(pool, { failures: [{ during: "scaleIn", message: "forbidden" }] });
    expect(status.conditions).toMatchObject([{ reason: "FailedScaleIn", lastTransitionTime: EARLIER }]);
    expect(announcements).toMatchObject([{ reason: "FailedScaleIn", message: "error during scale in: forbidden" }]);
  });

  it("is not told again while it says the same", () => {
    const pool = withStatus({ ...SETTLED, conditions: [FAILED] });
    expect(report(pool, { failures: [scaleOut("quota")] })).toMatchObject({ changed: false, announcements: [] });
  });

  describe("of which a server says something else each time", () => {
    const dial = (port: number) => `failed calling webhook "v": dial tcp 10.0.0.1:${port}: connect: connection refused`;
    const told = (...messages: readonly string[]) => report(aPool(), { failures: messages.map(scaleOut) }).status;
    const again = (before: Json, ...messages: readonly string[]) =>
      report(withStatus({ ...before }), { failures: messages.map(scaleOut), now: NOW + 60_000 });

    it.each([
      ["a port", dial(40_001), dial(40_002)],
      ["a time", "not before 2026-11-22T10:00:00Z", "not before 2026-11-22T10:00:02.5Z"],
      ["the number of a request", "denied (8f3a-11ec)", "denied (00c1-99ab)"],
    ])("is told once, where %s is all that differs", (_what, first, second) => {
      expect(again(told(first), second)).toMatchObject({ changed: false, announcements: [] });
    });

    it("is told once, in whatever order calls of a pass end", () => {
      const messages = ["quota", "forbidden", dial(1), "denied", "too late"];
      expect(again(told(...messages), ...messages.toReversed())).toMatchObject({ changed: false, announcements: [] });
    });

    it("is told anew when it says something else", () => {
      const { status, announcements } = again(told(dial(40_001)), "exceeded quota: pods=10");
      expect(status.conditions?.[0]?.message).toBe("error during scale out: exceeded quota: pods=10");
      expect(announcements).toHaveLength(1);
    });

    it("is told anew when it failed in something else", () => {
      const after = report(withStatus({ ...told(dial(1)) }), { failures: [{ during: "scaleIn", message: dial(2) }] });
      expect(after.status.conditions).toMatchObject([
        { reason: "FailedScaleIn", message: expect.stringContaining(":2:") },
      ]);
    });
  });

  it("goes, without a word, when the pass had none", () => {
    const after = report(withStatus({ ...SETTLED, conditions: [FAILED] }));
    expect(after).toMatchObject({ changed: true, announcements: [], status: { conditions: [] } });
  });

  it("says what is illegal", () => {
    const pool = aPool({ spec: aSpec({ replicas: -1 }) });
    const { status } = report(pool, { members: undefined });
    expect(status.conditions).toMatchObject([{ type: "ReplicaFailure", reason: "InvalidSpec" }]);
    expect(status.conditions?.[0]?.message).toContain("spec.replicas");
  });

  it("carries messages as they are, whatever signs they hold (D45)", () => {
    const message = "quota is 100% full %d";
    expect(report(aPool(), { failures: [scaleOut(message)] }).status.conditions?.[0]?.message).toContain(message);
  });

  it("stands beside the pause", () => {
    const { status } = report(aPoolWith({ paused: true }), { failures: [{ during: "upkeep", message: "forbidden" }] });
    expect(status.conditions?.map(({ type }) => type)).toEqual(["ReplicaFailure", "ReplicaPaused"]);
  });
});

it.each([
  ["True", true],
  ["False", false],
])("shows whether the last pass failed: ReplicaFailure %s", (status, fails) => {
  const conditions = [
    { type: "ReplicaPaused", status: "True" },
    { type: "ReplicaFailure", status },
  ];
  expect(showsFailure(aPool({ status: { conditions } }))).toBe(fails);
});

it("shows no failure before the first pass", () => {
  expect(showsFailure(aPool())).toBe(false);
});
