import { expect, it } from "vitest";
import { hintsFor } from "../../shared/events/changes.ts";
import { canonicalJson, DEPTH_MAX } from "../../shared/planning/json.ts";
import { parseInstance, parseRevision, parseVm, poolSpecSchema } from "../../shared/planning/model.ts";
import { judgeReview } from "../../shared/planning/review.ts";
import { resyncCause } from "../../shared/planning/schedule.ts";
import { judge } from "../../shared/planning/verdict.ts";
import { aPool, aSpec, LABELS, NOW } from "../support/builders.ts";

/** More than the API server takes, which refuses JSON of more than 10,000 levels. */
const LEVELS = 100_000;

/** `{"next":{"next":…}}` of so many levels. */
function nested(levels: number): unknown {
  return JSON.parse(`${'{"next":'.repeat(levels)}1${"}".repeat(levels)}`);
}

const template = (spec: unknown) => ({ metadata: { labels: LABELS }, spec: { template: { metadata: {}, spec } } });
const deepSpec = (levels: number) => aSpec({ virtualMachineTemplate: template({ domain: nested(levels) }) });
const METADATA = { name: "web", namespace: "ci", uid: "u", resourceVersion: "1", generation: 1 };

it.each([3_000, 10_000, LEVELS])(
  "a template of %i levels makes a pool illegal, and the message names its field",
  (levels) => {
    const verdict = judge({ name: "web", spec: deepSpec(levels) });
    expect(verdict.legal ? [] : verdict.problems).toEqual([
      {
        field: expect.stringMatching(/^spec\.virtualMachineTemplate\.spec\.template\.spec\.domain\.next\./),
        message: `is nested more than ${DEPTH_MAX} levels deep: write less of it`,
      },
    ]);
  },
);

it("the deepest legal template is legal, one level more is not", () => {
  // Above the nesting stand five levels of the pool's own.
  const [legal, illegal] = [DEPTH_MAX - 5, DEPTH_MAX - 4].map((levels) =>
    judge({ name: "web", spec: deepSpec(levels) }),
  );
  expect([legal?.legal, illegal?.legal]).toEqual([true, false]);
});

it.each([
  ["the spec", { ...aSpec(), ["__proto__"]: { replicas: 0 } }],
  ["the selector", aSpec({ selector: { matchLabels: JSON.parse('{"__proto__": "web"}') } })],
  ["the template", aSpec({ virtualMachineTemplate: template(JSON.parse('{"domain": {"__proto__": {}}}')) })],
])("a field __proto__ in %s, which a reader would lose, makes a pool illegal", (_where, spec) => {
  const written = JSON.parse(JSON.stringify(spec));
  const verdict = judge({ name: "web", spec: written });
  expect(verdict.legal ? [] : verdict.problems.map(({ message }) => message)).toContain(
    'has a field "__proto__", which no object can have: take it out',
  );
});

it("an update that leaves a deep spec as it is, is let through; one that changes it is refused", () => {
  const before = { metadata: METADATA, spec: deepSpec(LEVELS) };
  expect(judgeReview({ metadata: METADATA, spec: deepSpec(LEVELS) }, before)).toEqual({});
  expect(judgeReview({ metadata: METADATA, spec: { ...deepSpec(LEVELS), replicas: 1 } }, before).refusal).toBeDefined();
  expect(judgeReview({ metadata: METADATA, spec: aSpec() }, before).refusal).toBeUndefined();
});

it("notices that differ deep down wake the pool, and those that do not wake nobody", () => {
  const notice = { kind: "pool", namespace: "ci", name: "web", statusOnly: false } as const;
  const before = { metadata: METADATA, spec: deepSpec(LEVELS) };
  expect(hintsFor({ ...notice, object: { metadata: METADATA, spec: deepSpec(LEVELS) }, oldObject: before })).toEqual(
    [],
  );
  expect(hintsFor({ ...notice, object: { metadata: METADATA, spec: deepSpec(10) }, oldObject: before })).toHaveLength(
    1,
  );
});

it("a deep revision is none of a pool, a deep machine has no spec, nor has a deep instance", () => {
  const spec = { template: { spec: nested(LEVELS) } };
  expect(poolSpecSchema.safeParse(deepSpec(LEVELS)).success).toBe(false);
  expect(parseRevision({ metadata: METADATA, data: deepSpec(LEVELS) })).toMatchObject({ name: "web", spec: undefined });
  expect(parseVm({ metadata: METADATA, spec }, "web")).toMatchObject({ name: "web", spec: undefined });
  expect(parseInstance({ metadata: METADATA, spec })).toMatchObject({ name: "web", spec: undefined });
});

it("the schedule looks at a deep pool as at any that is not settled", () => {
  const pool = aPool({ spec: deepSpec(LEVELS), status: { replicas: 3, readyReplicas: 3 } });
  const rules = { settledMinutes: 1_440, everything: false };
  expect(["sweep", undefined]).toContain(resyncCause(pool, NOW, rules));
});

it("a managed-fields list of any length is read", () => {
  const managedFields = Array.from({ length: 300_000 }, () => ({
    manager: "virt-controller",
    time: "2026-01-01T00:00:00Z",
  }));
  const notice = { kind: "pool", namespace: "ci", name: "web", statusOnly: false, oldObject: undefined } as const;
  const object = { metadata: { ...METADATA, managedFields }, spec: {} };
  expect(hintsFor({ ...notice, object, oldObject: object })).toEqual([]);
});

it("the canonical text of a deep value is its JSON", () => {
  const text = `${'{"a":['.repeat(5)}1${"]}".repeat(5)}`;
  expect(canonicalJson(JSON.parse(text))).toBe(text);
  expect(canonicalJson(nested(LEVELS))).toHaveLength(9 * LEVELS + 1);
  expect(canonicalJson({ b: [1, null, { z: undefined }], a: "\u2028", c: null })).toBe(
    '{"a":"\u2028","b":[1,null,{}]}',
  );
});
