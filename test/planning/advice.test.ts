import { describe, expect, it } from "vitest";
import { announceAdvice, announceOverlap } from "../../shared/planning/advice.ts";
import type { Pool, Vm } from "../../shared/planning/model.ts";
import { judge } from "../../shared/planning/verdict.ts";
import {
  aClaim,
  anOwner,
  aPool,
  aSpec,
  aVm,
  type Json,
  LABELS,
  OTHER_POOL_UID,
  POOL_UID,
  someVms,
} from "../support/builders.ts";
import { planOf } from "./plans.ts";

/** A pool whose instances have these labels, and which no pass has seen to in this generation. */
function aPoolWhoseInstancesHave(labels: Json | undefined, selector: Json = { matchLabels: LABELS }): Pool {
  const template = { metadata: labels === undefined ? {} : { labels }, spec: { domain: {} } };
  const virtualMachineTemplate = { metadata: { labels: LABELS }, spec: { runStrategy: "Always", template } };
  return aPool({ generation: 2, claim: aClaim({ generation: 1 }), spec: aSpec({ selector, virtualMachineTemplate }) });
}

const announce = (pool: Pool) => announceAdvice(pool, judge(pool));

describe("instances without the selector's labels", () => {
  it.each<[string, Json | undefined, string]>([
    ["none", undefined, "{}"],
    ["others", { tier: "front" }, '{"tier":"front"}'],
    ["another value", { app: "db" }, '{"app":"db"}'],
  ])("are told to the owner when they have %s (D39)", (_what, labels, shown) => {
    const pool = aPoolWhoseInstancesHave(labels);
    expect(announce(pool)).toMatchObject([{ type: "Warning", reason: "LabelsMissing", key: "2" }]);
    const [announcement] = announce(pool);
    expect(announcement?.message).toContain('selector "app=web"');
    expect(announcement?.message).toContain("spec.virtualMachineTemplate.spec.template.metadata.labels");
    expect(announcement?.message).toContain(shown);
  });

  it.each<[string, Json, Json]>([
    ["the same labels", LABELS, { matchLabels: LABELS }],
    ["more labels", { ...LABELS, tier: "front" }, { matchLabels: LABELS }],
    ["what an expression asks for", { app: "web" }, { matchExpressions: [{ key: "app", operator: "Exists" }] }],
    ["nothing that an expression forbids", {}, { matchExpressions: [{ key: "db", operator: "DoesNotExist" }] }],
  ])("are not told of when they have %s", (_what, labels, selector) => {
    expect(announce(aPoolWhoseInstancesHave(labels, selector))).toEqual([]);
  });

  it("are a reason in the plan, which holds nothing back for it", () => {
    const pool = aPoolWhoseInstancesHave(undefined);
    const plan = planOf({ pool, vms: someVms(3) });
    expect(plan.reasons.join()).toContain("a Service with this selector finds no pods");
    expect(plan.actions.map(({ kind }) => kind)).toEqual(["writeClaim"]);
  });

  it("are told of again in another generation, and not while a claim names this one", () => {
    const { spec } = aPoolWhoseInstancesHave(undefined);
    const told = aPool({ generation: 2, claim: aClaim({ generation: 2 }), spec });
    expect(announce(told)).toEqual([]);
    expect(planOf({ pool: told, vms: someVms(3) }).reasons).toEqual([]);
    expect(announce(aPool({ generation: 3, claim: aClaim({ generation: 2 }), spec }))).toHaveLength(1);
  });

  it("are told of where no pass has been, or its claim cannot be read", () => {
    const { spec } = aPoolWhoseInstancesHave(undefined);
    for (const claim of [null, "{"]) expect(announce(aPool({ claim, spec }))).toHaveLength(1);
  });

  it("are of no interest when the pool is being deleted, or illegal anyway", () => {
    const { spec } = aPoolWhoseInstancesHave(undefined);
    expect(announce(aPool({ deleting: true, claim: null, spec }))).toEqual([]);
    expect(announce(aPool({ claim: null, spec: { ...aSpec(), replicas: -1 } }))).toEqual([]);
  });
});

describe("the memory of machines", () => {
  const keeping = (scaleInStrategy: Json | undefined) => {
    const template = { metadata: { labels: LABELS }, spec: { domain: {} } };
    const virtualMachineTemplate = { metadata: { labels: LABELS }, spec: { runStrategy: "Always", template } };
    return aPool({
      generation: 2,
      claim: aClaim({ generation: 1 }),
      spec: aSpec({ virtualMachineTemplate, ...(scaleInStrategy === undefined ? {} : { scaleInStrategy }) }),
    });
  };

  it.each(["proactive", "opportunistic"])("is said not to be kept when %s scale in asks for it (D07)", (name) => {
    const pool = keeping({ [name]: { statePreservation: "Online" } });
    expect(announce(pool)).toMatchObject([{ type: "Warning", reason: "MemoryNotKept", key: "2" }]);
    expect(announce(pool)[0]?.message).toContain(`spec.scaleInStrategy.${name}.statePreservation is Online`);
  });

  it.each<[string, Json | undefined]>([
    ["no strategy", undefined],
    ["Disabled", { proactive: { statePreservation: "Disabled" } }],
    ["Offline", { proactive: { statePreservation: "Offline" } }],
    ["unmanaged", { unmanaged: {} }],
  ])("is not spoken of with %s", (_what, strategy) => expect(announce(keeping(strategy))).toEqual([]));

  it("is spoken of once a generation", () => {
    const { spec } = keeping({ proactive: { statePreservation: "Online" } });
    expect(announce(aPool({ generation: 2, claim: aClaim({ generation: 2 }), spec }))).toEqual([]);
    expect(announce(aPool({ generation: 3, claim: aClaim({ generation: 2 }), spec }))).toHaveLength(1);
  });
});

describe("a roll-out of all machines at once", () => {
  const labelled = { metadata: { labels: LABELS }, spec: { template: { metadata: { labels: LABELS } } } };
  const rolling = (spec: Json) =>
    aPool({
      generation: 2,
      claim: aClaim({ generation: 1 }),
      spec: aSpec({ virtualMachineTemplate: labelled, ...spec }),
    });

  it.each(["100%", "+100%", "0100%"])("is spoken of when maxUnavailable is written as %s", (maxUnavailable) => {
    expect(announce(rolling({ maxUnavailable }))).toMatchObject([{ type: "Warning", reason: "AvailabilityNotKept" }]);
    expect(announce(rolling({ maxUnavailable }))[0]?.message).toContain(`spec.maxUnavailable: ${maxUnavailable} lets`);
  });

  it.each<[string, Json]>([
    ["nothing is written, which is the default", {}],
    ["some are kept", { maxUnavailable: "99%" }],
    ["it is a number", { maxUnavailable: 100 }],
    ["guests are not restarted", { maxUnavailable: "100%", updateStrategy: { opportunistic: {} } }],
    ["nothing is rolled out", { maxUnavailable: "100%", updateStrategy: { unmanaged: {} } }],
  ])("is not spoken of when %s", (_what, spec) => expect(announce(rolling(spec))).toEqual([]));
});

describe("machines of another pool that the selector matches", () => {
  const pool = aPool({ generation: 4 });
  const overlap = (...vms: readonly Vm[]) => announceOverlap(pool, judge(pool), vms);
  const others = (name: string, overrides: Parameters<typeof aVm>[1] = {}) =>
    aVm(0, { name: `${name}-0`, uid: `uid-${name}`, owners: [{ ...anOwner(OTHER_POOL_UID), name }], ...overrides });

  it("are told of once a generation, with the names of their pools (D31)", () => {
    expect(overlap(aVm(0), others("db"), others("api"), others("db", { uid: "x" }))).toEqual([
      {
        type: "Warning",
        reason: "SelectorOverlap",
        message: expect.stringContaining(
          'selector "app=web" also matches machines of api, db: each pool keeps to its own',
        ),
        key: "4",
        once: true,
      },
    ]);
  });

  it("name three pools and the number of the others", () => {
    const [told] = overlap(...["a", "b", "c", "d", "e"].map((name) => others(name)));
    expect(told?.message).toContain("machines of a, b, c and 2 more:");
  });

  it.each<[string, Vm]>([
    ["are the pool's own", aVm(0)],
    ["belong to nobody", aVm(0, { pool: null })],
    ["belong to something else", others("db", { owners: [{ ...anOwner(OTHER_POOL_UID), kind: "Deployment" }] })],
    ["belong to an earlier pool of the name", others("web")],
    ["are on their way out", others("db", { terminating: true })],
    [
      "are the pool's own, under a name that is not its",
      others("db", { owners: [{ ...anOwner(POOL_UID), name: "db" }] }),
    ],
  ])("are not told of when they %s", (_what, vm) => expect(overlap(vm)).toEqual([]));

  it("are not told of when the pool is illegal: whom it selects is not known", () => {
    const illegal = aPool({ spec: { ...aSpec(), replicas: -1 } });
    expect(announceOverlap(illegal, judge(illegal), [others("db")])).toEqual([]);
  });

  it("are told of by the plan, and nothing is held for it", () => {
    const plan = planOf({ pool, vms: [...someVms(3), others("db")] });
    expect(plan.announcements.map(({ reason }) => reason)).toEqual(["SelectorOverlap"]);
    expect(plan.reasons).toEqual([]);
  });
});
