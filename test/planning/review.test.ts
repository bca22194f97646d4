import { describe, expect, it } from "vitest";
import { judgeReview } from "../../shared/planning/review.ts";
import { aSpec, type Json, LABELS } from "../support/builders.ts";

const LEAVING = { deletionTimestamp: "2026-11-22T09:59:00Z", deletionGracePeriodSeconds: 0 };

const pool = (spec: unknown, metadata: Json = {}) => ({ metadata: { name: "web", generation: 1, ...metadata }, spec });
const fieldsOf = (object: unknown, oldObject?: unknown) =>
  judgeReview(object, oldObject).refusal?.causes.map(({ field }) => field);

describe("an update of an illegal pool", () => {
  const illegal = aSpec({ maxUnavailable: "0%", replicas: 2 });

  it.each<[string, Json, Json]>([
    [
      "takes the finalizers of a pool on its way out (D20)",
      { ...LEAVING, finalizers: [] },
      { ...LEAVING, finalizers: ["a"] },
    ],
    ["deletes it in the foreground", { ...LEAVING, finalizers: ["foregroundDeletion"] }, {}],
    ["takes a finalizer of a pool that lives", { finalizers: [] }, { finalizers: ["a"] }],
    ["changes an annotation", { annotations: { a: "1" } }, {}],
  ])("is not refused when it %s, and leaves the spec as it is", (_what, after, before) => {
    expect(judgeReview(pool(illegal, after), pool(illegal, before))).toEqual({});
  });

  it("leaves the spec as it is when it only writes what is absent as null", () => {
    expect(fieldsOf(pool({ ...illegal, paused: null }), pool(illegal))).toBeUndefined();
  });

  it("is refused when it changes the spec and leaves it illegal", () => {
    const other = { ...illegal, replicas: 3 };
    expect(fieldsOf(pool(other), pool(illegal))).toEqual(["spec.maxUnavailable"]);
    expect(fieldsOf(pool(other, LEAVING), pool(illegal, LEAVING))).toEqual(["spec.maxUnavailable"]);
  });

  it("is let through when it repairs the spec, and when the pool has none", () => {
    expect(judgeReview(pool(aSpec()), pool(illegal)).refusal).toBeUndefined();
    expect(judgeReview(pool(undefined, LEAVING), pool(undefined))).toEqual({});
  });
});

describe("the selector", () => {
  const selecting = (selector: unknown) => pool(aSpec({ selector }));

  it("stays, on the way out too, and the message says which", () => {
    const other = { matchExpressions: [{ key: "app", operator: "Exists" }] };
    for (const metadata of [{}, LEAVING]) {
      const { refusal } = judgeReview(
        { ...selecting(other), metadata: { name: "web", ...metadata } },
        selecting({ matchLabels: LABELS }),
      );
      expect(refusal?.message).toBe(
        'spec.selector: selector is immutable after creation: keep "app=web", or make another pool',
      );
    }
  });

  it("may be written in another way", () => {
    const expressions = [
      { key: "app", operator: "In", values: ["web", "db"] },
      { key: "app", operator: "Exists" },
    ];
    const [first, second] = expressions;
    const written = { matchLabels: null, matchExpressions: [first, second] };
    const reordered = { matchLabels: {}, matchExpressions: [second, { ...first, values: ["db", "web"] }] };
    expect(fieldsOf(selecting(reordered), selecting(written))).toBeUndefined();
  });

  const unreadable = { matchExpressions: [{ key: "app", operator: "Is" }] };
  const TEXT = "app=web";

  it("may not become unreadable", () => {
    expect(fieldsOf(selecting(unreadable), selecting({ matchLabels: LABELS }))).toEqual([
      "spec.selector.matchExpressions[0].operator",
      "spec.selector",
    ]);
  });

  it.each([
    ["nothing, as it has never been in force", undefined],
    ["nothing, as passes have held since the pool was made", { labelSelector: "", conditions: [] }],
    ["the same", { labelSelector: TEXT }],
  ])("may be mended where it cannot be read, and the status names %s", (_what, status) => {
    const broken = { ...selecting(unreadable), status };
    expect(fieldsOf(selecting({ matchLabels: LABELS }), broken)).toBeUndefined();
    expect(fieldsOf(selecting({ matchLabels: LABELS }), { ...selecting(undefined), status })).toBeUndefined();
  });

  it.each([
    ["cannot be read", selecting(unreadable)],
    ["is gone with the whole spec", pool(undefined)],
  ])(
    "that %s is mended into the one that was last in force, whose machines the pool may still have",
    (_what, broken) => {
      const old = { ...broken, status: { labelSelector: "app=db" } };
      expect(judgeReview(selecting({ matchLabels: LABELS }), old).refusal?.message).toBe(
        'spec.selector: selector is immutable after creation: keep "app=db", or make another pool',
      );
    },
  );

  it("that readers would lose a part of cannot be read, and is not taken for one that asks for nothing", () => {
    const lost = selecting(JSON.parse('{"matchLabels": {"__proto__": "web"}}'));
    expect(fieldsOf(selecting({ matchLabels: LABELS }), lost)).toBeUndefined();
  });

  it("that cannot be read is refused with what is wrong with it", () => {
    const broken = { ...selecting(unreadable), status: { labelSelector: TEXT } };
    const other = { matchExpressions: [{ key: "app", operator: "Or" }] };
    expect(fieldsOf(selecting(other), broken)).toEqual(["spec.selector.matchExpressions[0].operator"]);
  });
});

describe("an update without the old pool", () => {
  it.each([null, "text", []])("is refused, as nothing can be compared: %j", (old) => {
    expect(judgeReview(pool(aSpec()), old).refusal?.message).toContain("could not fetch the old pool");
  });
});

describe("a pool whose name the server is to choose", () => {
  it("is judged by the length that the name will have (D22)", () => {
    const generated = (length: number) => ({ metadata: { generateName: "n".repeat(length) }, spec: aSpec() });
    expect(fieldsOf(generated(56))).toBeUndefined();
    expect(fieldsOf(generated(57))).toEqual(["metadata.name"]);
    expect(judgeReview(generated(70), undefined).refusal?.message).toContain("2 characters too long");
    expect(
      judgeReview({ metadata: { name: "", generateName: "web-" }, spec: aSpec() }, undefined).refusal,
    ).toBeUndefined();
  });
});

describe("what is no pool at all", () => {
  it("is refused where it has no spec", () => expect(fieldsOf(pool(undefined))).toEqual(["spec"]));

  it.each([undefined, null, "text", [], {}, { metadata: 7 }])("is refused: %j", (object) => {
    expect(fieldsOf(object)).toEqual(["metadata"]);
  });
});

describe("warnings", () => {
  const labelled = { metadata: { labels: LABELS }, spec: { template: { metadata: { labels: LABELS } } } };
  const warned = (spec: Json, oldObject?: unknown) =>
    judgeReview(pool(aSpec({ virtualMachineTemplate: labelled, ...spec })), oldObject).warnings;

  it("are none for what is plain", () => expect(warned({})).toEqual([]));

  it("name the field, and fit what kubectl prints", () => {
    const warnings = warned({
      virtualMachineTemplate: { metadata: { labels: LABELS }, spec: { template: {} } },
      maxUnavailable: "100%",
      scaleInStrategy: { opportunistic: { statePreservation: "Online" } },
    });
    expect(warnings).toEqual([
      expect.stringMatching(/^spec\.virtualMachineTemplate\.spec\.template\.metadata\.labels: /),
      expect.stringMatching(/^spec\.scaleInStrategy\.opportunistic\.statePreservation: Online /),
      expect.stringMatching(/^spec\.maxUnavailable: 100% /),
    ]);
    for (const warning of warnings ?? []) expect(warning.length, warning).toBeLessThanOrEqual(120);
  });

  it("come again when the spec changes, not when it stays", () => {
    const spec = aSpec({ virtualMachineTemplate: labelled, maxUnavailable: "100%" });
    expect(judgeReview(pool(spec), pool(aSpec({ virtualMachineTemplate: labelled }))).warnings).toHaveLength(1);
    expect(judgeReview(pool(spec), pool(spec)).warnings).toBeUndefined();
  });

  it("are left out where there is a refusal", () => {
    expect(judgeReview(pool(aSpec({ maxUnavailable: "100%", paused: "yes" })), undefined).warnings).toBeUndefined();
  });
});
