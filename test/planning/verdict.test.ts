import { describe, expect, it } from "vitest";
import { describeProblems } from "../../shared/planning/errors.ts";
import { REVISION_LABEL } from "../../shared/planning/names.ts";
import { judgeReview } from "../../shared/planning/review.ts";
import { type LabelSelector, parseSelector } from "../../shared/planning/selector.ts";
import { judge } from "../../shared/planning/verdict.ts";
import { aClaim, aPool, aRevision, aRollout, aSpec, aVm, type Json, LABELS, someVms } from "../support/builders.ts";
import { createsOf, planOf } from "./plans.ts";

interface Illegal {
  readonly it: string;
  readonly spec: unknown;
  /** What the message must name: the field, and what is expected. */
  readonly says: readonly string[];
}

const scaleInBy = (selectors: Json) => aSpec({ scaleInStrategy: { proactive: { selectionPolicy: { selectors } } } });
const updateBy = (selectors: Json) => aSpec({ updateStrategy: { proactive: { selectionPolicy: { selectors } } } });
const nodes = (...nodeSelectorRequirementMatcher: readonly Json[]) => ({ nodeSelectorRequirementMatcher });
const SCALE_IN_SELECTORS = "spec.scaleInStrategy.proactive.selectionPolicy.selectors";
const UPDATE_SELECTORS = "spec.updateStrategy.proactive.selectionPolicy.selectors";

const template = (metadata: Json, spec: Json = { template: {} }) => ({ metadata, spec });

/** Asks for the template's label or for one of many others, in a text of so many characters. */
function selectorOfLength(length: number): Json {
  const values = Array.from({ length: 124 }, (_, index) => String(index).padStart(63, "v"));
  const rest = length - "app in (web,)".length - values.join(",").length - ",".length;
  return { matchExpressions: [{ key: "app", operator: "In", values: ["web", ...values, "r".repeat(rest)] }] };
}

const ILLEGAL: readonly Illegal[] = [
  { it: "no spec", spec: undefined, says: ["spec"] },
  { it: "a spec that is no object", spec: "yes", says: ["spec: must be an object, not a text"] },
  { it: "negative replicas (D31)", spec: aSpec({ replicas: -1 }), says: ["spec.replicas: must be at least 0, not -1"] },
  { it: "half a replica", spec: aSpec({ replicas: 1.5 }), says: ["spec.replicas: must be a whole number, not 1.5"] },
  {
    it: "more replicas than an int32 holds",
    spec: aSpec({ replicas: 2 ** 31 }),
    says: ["spec.replicas: must be at most"],
  },
  { it: "replicas in words", spec: aSpec({ replicas: "3" }), says: ['spec.replicas: must be a number, not "3"'] },
  {
    it: "no selector",
    spec: aSpec({ selector: undefined }),
    says: ["spec.selector: missing selector: write matchLabels"],
  },
  {
    it: "a null selector",
    spec: aSpec({ selector: null }),
    says: ["spec.selector: missing selector: write matchLabels"],
  },
  {
    it: "a selector whose text is too long for an address",
    spec: aSpec({ selector: selectorOfLength(8_001) }),
    says: [
      "spec.selector: its text is of 8001 characters, more than the 8000 that fit an address: ask for fewer labels",
    ],
  },
  {
    it: "a selector with an unknown field",
    spec: aSpec({ selector: { matchNames: {} } }),
    says: ['spec.selector: has no field "matchNames"'],
  },
  {
    it: "a selector that does not match the template",
    spec: aSpec({ selector: { matchLabels: { app: "db" } } }),
    says: ["spec.selector", 'selector "app=db"', 'are {"app":"web"}', "give the template the labels"],
  },
  {
    it: "a template without labels",
    spec: aSpec({ virtualMachineTemplate: template({}) }),
    says: ["spec.selector", 'selector "app=web"', "are empty"],
  },
  {
    it: "a selector that matches everything over a template without labels",
    spec: aSpec({ selector: {}, virtualMachineTemplate: template({}) }),
    says: ["spec.selector", "are empty"],
  },
  {
    it: "a selector by the label that names the revision",
    spec: aSpec({
      selector: { matchLabels: { ...LABELS, [REVISION_LABEL]: "web-7" } },
      virtualMachineTemplate: template({ labels: { ...LABELS, [REVISION_LABEL]: "web-7" } }),
    }),
    says: [
      `spec.selector.matchLabels.${REVISION_LABEL}: the pool itself gives its machines the label "${REVISION_LABEL}"`,
      "ask for other labels of the template",
    ],
  },
  {
    it: "a selector that asks machines not to name a revision",
    spec: aSpec({
      selector: {
        matchLabels: LABELS,
        matchExpressions: [
          { key: "db", operator: "DoesNotExist" },
          { key: REVISION_LABEL, operator: "DoesNotExist" },
        ],
      },
    }),
    says: ["spec.selector.matchExpressions[1].key: the pool itself gives its machines the label"],
  },
  {
    it: "an unknown selector operator",
    spec: aSpec({ selector: { matchExpressions: [{ key: "app", operator: "Is", values: ["web"] }] } }),
    says: ["spec.selector.matchExpressions[0].operator", "write In, NotIn, Exists or DoesNotExist"],
  },
  {
    it: "an In without values",
    spec: aSpec({ selector: { matchExpressions: [{ key: "app", operator: "In" }] } }),
    says: ["spec.selector.matchExpressions[0].values", "must be specified when operator is In"],
  },
  {
    it: "no template (D46)",
    spec: aSpec({ virtualMachineTemplate: undefined }),
    says: ["spec.virtualMachineTemplate: missing virtual machine template: write metadata.labels and spec.template"],
  },
  {
    it: "an empty template (D30)",
    spec: aSpec({ virtualMachineTemplate: {} }),
    says: ["spec.virtualMachineTemplate.spec.template: missing virtual machine template: write the template of"],
  },
  {
    it: "a template without an instance template",
    spec: aSpec({ virtualMachineTemplate: template({ labels: LABELS }, {}) }),
    says: ["spec.virtualMachineTemplate.spec.template: missing virtual machine template: write the template of"],
  },
  {
    it: "labels that are no text",
    spec: aSpec({ virtualMachineTemplate: template({ labels: { app: 7 } }) }),
    says: ["spec.virtualMachineTemplate.metadata.labels.app: must be a text, not 7"],
  },
  {
    it: "a DataVolume template without a name",
    spec: aSpec({
      virtualMachineTemplate: template({ labels: LABELS }, { template: {}, dataVolumeTemplates: [{ metadata: {} }] }),
    }),
    says: ["spec.virtualMachineTemplate.spec.dataVolumeTemplates[0].metadata.name: missing: write a text"],
  },
  {
    it: "an unknown sort policy",
    spec: aSpec({ scaleInStrategy: { proactive: { selectionPolicy: { sortPolicy: "Biggest" } } } }),
    says: [
      'spec.scaleInStrategy.proactive.selectionPolicy.sortPolicy: "Biggest" is not supported: write "AscendingOrder", "DescendingOrder", "Newest", "Oldest" or "Random"',
    ],
  },
  {
    it: "an unknown state preservation",
    spec: aSpec({ scaleInStrategy: { opportunistic: { statePreservation: "Always" } } }),
    says: [
      'spec.scaleInStrategy.opportunistic.statePreservation: "Always" is not supported: write "Disabled", "Offline" or "Online"',
    ],
  },
  {
    it: "two scale-in strategies",
    spec: aSpec({ scaleInStrategy: { proactive: {}, unmanaged: {} } }),
    says: ["spec.scaleInStrategy", "only one strategy", "unmanaged, proactive"],
  },
  {
    it: "three update strategies (D37)",
    spec: aSpec({ updateStrategy: { proactive: {}, opportunistic: {}, unmanaged: {} } }),
    says: ["spec.updateStrategy", "only one strategy", "unmanaged, opportunistic, proactive"],
  },
  {
    it: "a template without metadata",
    spec: aSpec({ virtualMachineTemplate: { spec: { template: {} } } }),
    says: ["spec.selector", "which are empty"],
  },
  { it: "maxUnavailable 0", spec: aSpec({ maxUnavailable: 0 }), says: ["spec.maxUnavailable", "greater than 0"] },
  {
    it: "a negative maxUnavailable",
    spec: aSpec({ maxUnavailable: -2 }),
    says: ["spec.maxUnavailable", "greater than 0"],
  },
  {
    it: "maxUnavailable in words without %",
    spec: aSpec({ maxUnavailable: "3" }),
    says: ["spec.maxUnavailable", "must end with %"],
  },
  {
    it: "maxUnavailable 0%",
    spec: aSpec({ maxUnavailable: "0%" }),
    says: ["spec.maxUnavailable", "between 1 and 100"],
  },
  {
    it: "maxUnavailable 101%",
    spec: aSpec({ maxUnavailable: "101%" }),
    says: ["spec.maxUnavailable", "between 1 and 100"],
  },
  {
    it: "maxUnavailable 1.5%",
    spec: aSpec({ maxUnavailable: "1.5%" }),
    says: ["spec.maxUnavailable", "not an integer"],
  },
  {
    it: "maxUnavailable true",
    spec: aSpec({ maxUnavailable: true }),
    says: ["spec.maxUnavailable: must be a number of machines, such as 1, or a percentage, such as 25%, not true"],
  },
  {
    it: "a start-up threshold of 0",
    spec: aSpec({ autohealing: { startUpFailureThreshold: 0 } }),
    says: ["spec.autohealing.startUpFailureThreshold: must be at least 1, not 0"],
  },
  {
    it: "a negative start-up threshold (D31)",
    spec: aSpec({ autohealing: { startUpFailureThreshold: -3 } }),
    says: ["spec.autohealing.startUpFailureThreshold: must be at least 1, not -3"],
  },
  ...["banana", "", "5", "5 minutes", "1d"].map((text) => ({
    it: `a duration of ${JSON.stringify(text)} (D31)`,
    spec: aSpec({ autohealing: { minFailingToStartDuration: text } }),
    says: [
      `spec.autohealing.minFailingToStartDuration: "${text}" is not a duration`,
      "write numbers with units, such as 90s, 5m or 1h30m",
    ],
  })),
  ...["0", "0s", "-1h", "-0m"].map((text) => ({
    it: `a duration of ${text} (D08, D31)`,
    spec: aSpec({ autohealing: { minFailingToStartDuration: text } }),
    says: [
      `spec.autohealing.minFailingToStartDuration: must be longer than 0, not "${text}"`,
      "write how long a machine may fail to start, such as 5m",
    ],
  })),
  {
    it: "a duration in numbers",
    spec: aSpec({ autohealing: { minFailingToStartDuration: 300 } }),
    says: ["spec.autohealing.minFailingToStartDuration: must be a text, not 300"],
  },
  {
    it: "an unknown operator in the labels that scale-in selects by (D31)",
    spec: scaleInBy({ labelSelector: { matchExpressions: [{ key: "tier", operator: "Is", values: ["front"] }] } }),
    says: [
      `${SCALE_IN_SELECTORS}.labelSelector.matchExpressions[0].operator`,
      '"Is" is not a valid label selector operator',
      "write In, NotIn, Exists or DoesNotExist",
    ],
  },
  {
    it: "an unknown operator in the labels that updates select by (D31)",
    spec: updateBy({ labelSelector: { matchExpressions: [{ key: "tier", operator: "Gt", values: ["4"] }] } }),
    says: [
      `${UPDATE_SELECTORS}.labelSelector.matchExpressions[0].operator`,
      '"Gt" is not a valid label selector operator',
    ],
  },
  {
    it: "a label that cannot exist where scale-in selects",
    spec: scaleInBy({ labelSelector: { matchLabels: { tier: "a b" } } }),
    says: [`${SCALE_IN_SELECTORS}.labelSelector.matchLabels.tier`, '"a b" is not a valid label value'],
  },
  {
    it: "a field that label selectors do not have where scale-in selects",
    spec: scaleInBy({ labelSelector: { matchNames: {} } }),
    says: [`${SCALE_IN_SELECTORS}.labelSelector`, "matchNames"],
  },
  {
    it: "an unknown operator in the node selectors that scale-in selects by (D31)",
    spec: scaleInBy(nodes({ key: "zone", operator: "Exists" }, { key: "zone", operator: "Is", values: ["a"] })),
    says: [
      `${SCALE_IN_SELECTORS}.nodeSelectorRequirementMatcher[1].operator`,
      '"Is" is not a valid label selector operator',
      "write In, NotIn, Exists, DoesNotExist, Gt or Lt",
    ],
  },
  {
    it: "an unknown operator in the node selectors that updates select by (D31)",
    spec: updateBy(nodes({ key: "zone", operator: "in", values: ["a"] })),
    says: [
      `${UPDATE_SELECTORS}.nodeSelectorRequirementMatcher[0].operator`,
      '"in" is not a valid label selector operator',
    ],
  },
  {
    it: "a node requirement with an impossible key",
    spec: scaleInBy(nodes({ key: "a b", operator: "Exists" })),
    says: [`${SCALE_IN_SELECTORS}.nodeSelectorRequirementMatcher[0].key`, '"a b" is not a valid label key'],
  },
  {
    it: "a node requirement with an impossible value",
    spec: scaleInBy(nodes({ key: "zone", operator: "In", values: ["a b"] })),
    says: [`${SCALE_IN_SELECTORS}.nodeSelectorRequirementMatcher[0].values`, '"a b" is not a valid label value'],
  },
  ...["In", "NotIn"].map((operator) => ({
    it: `a node requirement ${operator} without values`,
    spec: scaleInBy(nodes({ key: "zone", operator, values: [] })),
    says: [
      `${SCALE_IN_SELECTORS}.nodeSelectorRequirementMatcher[0].values`,
      `must be specified when operator is ${operator}`,
    ],
  })),
  ...["Exists", "DoesNotExist"].map((operator) => ({
    it: `a node requirement ${operator} with a value`,
    spec: scaleInBy(nodes({ key: "zone", operator, values: ["a"] })),
    says: [
      `${SCALE_IN_SELECTORS}.nodeSelectorRequirementMatcher[0].values`,
      `may not be specified when operator is ${operator}`,
    ],
  })),
  ...["Gt", "Lt"].flatMap((operator) =>
    [
      { values: undefined, given: "not 0 values" },
      { values: [], given: "not 0 values" },
      { values: ["1", "2"], given: "not 2 values" },
      { values: ["many"], given: 'not "many"' },
      { values: ["1.5"], given: 'not "1.5"' },
      { values: [""], given: 'not ""' },
      { values: ["-1"], given: 'not "-1"' },
      { values: ["9223372036854775808"], given: 'not "9223372036854775808"' },
    ].map(({ values, given }) => ({
      it: `a node requirement ${operator} of ${JSON.stringify(values)}`,
      spec: scaleInBy(nodes({ key: "cores", operator, values })),
      says: [
        `${SCALE_IN_SELECTORS}.nodeSelectorRequirementMatcher[0].values`,
        `exactly one integer from 0 when operator is ${operator}`,
        given,
      ],
    })),
  ),
  {
    it: "a field that every reader would lose",
    spec: aSpec({ shiny: [{}, JSON.parse('{"__proto__": {}}')] }),
    says: ['spec.shiny[1]: has a field "__proto__", which no object can have: take it out'],
  },
  { it: "paused in words", spec: aSpec({ paused: "yes" }), says: ['spec.paused: must be true or false, not "yes"'] },
];

describe("an illegal pool", () => {
  for (const { it: name, spec, says } of ILLEGAL) {
    it(`is held for ${name}, and the message names field and expectation`, () => {
      const plan = planOf({ pool: aPool({ spec }), vms: [aVm(0), aVm(1)] });
      expect(plan).toMatchObject({ needs: [], actions: [], members: undefined });
      expect(plan.reasons).toHaveLength(1);
      expect(plan.reasons[0]).toMatch(/^held: /);
      for (const part of says) expect(plan.reasons[0]).toContain(part);
    });
  }

  it("is told all that is wrong with it", () => {
    const verdict = judge(
      aPool({ spec: aSpec({ maxUnavailable: "0%", scaleInStrategy: { proactive: {}, unmanaged: {} } }) }),
    );
    expect(verdict.legal ? [] : verdict.problems.map(({ field }) => field)).toEqual([
      "spec.maxUnavailable",
      "spec.scaleInStrategy",
    ]);
  });

  it("is told what is wrong with some fields though others are not even readable", () => {
    const spec = aSpec({ paused: "yes", maxUnavailable: 0, selector: { matchLabels: { app: "db" } } });
    const verdict = judge({ name: "n".repeat(70), spec });
    expect(verdict.legal ? [] : verdict.problems.map(({ field }) => field)).toEqual([
      "metadata.name",
      "spec.paused",
      "spec.selector",
      "spec.maxUnavailable",
    ]);
  });

  it("is told at most 20 things", () => {
    const matchExpressions = Array.from({ length: 50 }, () => ({ key: "", operator: "Is" }));
    const verdict = judge(aPool({ spec: aSpec({ selector: { matchExpressions } }) }));
    expect(verdict.legal ? 0 : verdict.problems.length).toBe(20);
  });

  it("is held when revision names would not fit a label", () => {
    const name = "n".repeat(62);
    expect(judge({ name, spec: aSpec() })).toMatchObject({ legal: false });
    const plan = planOf({ pool: aPool({ name, spec: aSpec() }) });
    expect(plan.reasons[0]).toContain("metadata.name");
    expect(plan.reasons[0]).toContain("1 characters too long");
    expect(plan.reasons[0]).toContain("63 characters; use a shorter name");
  });

  it("is scaled on though its generation has a digit too many, as its machines name an earlier one (D22)", () => {
    const name = "n".repeat(61);
    const spec = aSpec({ replicas: 1 });
    const first = aRevision({ name: `${name}-1` });
    const claim = aClaim({ generation: 9, rollout: aRollout(spec, `${name}-1`) });
    const plan = planOf({ pool: aPool({ name, generation: 10, spec, claim }), revisions: [first] });
    expect(createsOf(plan)).toEqual([0]);
  });

  it("is held when its generation has a digit too many for the revision of a new template (D22)", () => {
    const name = "n".repeat(61);
    const plan = planOf({
      pool: aPool({ name, generation: 10, spec: aSpec({ replicas: 1 }), claim: aClaim({ rollout: undefined }) }),
    });
    expect(createsOf(plan)).toEqual([]);
    expect(plan.reasons.join()).toContain("shorter name");
  });

  it("is refused a new template whose revision could not be named, and nothing else (D22)", () => {
    const at = (generation: number, spec: Json) => ({ metadata: { name: "n".repeat(61), generation }, spec });
    const other = aSpec({
      virtualMachineTemplate: { metadata: { labels: LABELS }, spec: { running: false, template: {} } },
    });
    expect(judgeReview(at(10, other), at(9, aSpec())).refusal?.message).toContain("metadata.name");
    expect(judgeReview(at(9, other), at(8, aSpec())).refusal).toBeUndefined();
    expect(judgeReview(at(10, aSpec({ replicas: 9 })), at(9, aSpec())).refusal).toBeUndefined();
  });

  it("goes on when it is repaired", () => {
    expect(planOf({ pool: aPool({ spec: aSpec({ replicas: 2 }) }), vms: someVms(1) }).actions.length).toBeGreaterThan(
      0,
    );
  });
});

const LEGAL: readonly { readonly it: string; readonly spec: Json }[] = [
  { it: "a selector whose text just fits an address", spec: aSpec({ selector: selectorOfLength(8_000) }) },
  { it: "maxUnavailable null", spec: aSpec({ maxUnavailable: null }) },
  { it: "the smallest percentage", spec: aSpec({ maxUnavailable: "1%" }) },
  { it: "nothing but what is required", spec: aSpec() },
  { it: "a selector that matches everything", spec: aSpec({ selector: {} }) },
  { it: "no replicas", spec: aSpec({ replicas: undefined }) },
  { it: "maxUnavailable 1", spec: aSpec({ maxUnavailable: 1 }) },
  { it: "maxUnavailable 100%", spec: aSpec({ maxUnavailable: "100%" }) },
  { it: "maxUnavailable 007%, which the reference accepts", spec: aSpec({ maxUnavailable: "007%" }) },
  { it: "maxUnavailable +5%, which the reference accepts", spec: aSpec({ maxUnavailable: "+5%" }) },
  { it: "empty strategies", spec: aSpec({ scaleInStrategy: {}, updateStrategy: {}, autohealing: {} }) },
  { it: "null strategies", spec: aSpec({ scaleInStrategy: null, updateStrategy: null, autohealing: null }) },
  {
    it: "one strategy and two nulls",
    spec: aSpec({ scaleInStrategy: { proactive: {}, unmanaged: null, opportunistic: null } }),
  },
  { it: "empty selectors", spec: scaleInBy({ labelSelector: {}, nodeSelectorRequirementMatcher: [] }) },
  { it: "null selectors", spec: updateBy({ labelSelector: null, nodeSelectorRequirementMatcher: null }) },
  {
    it: "selectors that no machine of its template matches",
    spec: scaleInBy({ labelSelector: { matchLabels: { tier: "front" } } }),
  },
  {
    it: "each operator of a node requirement",
    spec: updateBy(
      nodes(
        { key: "kubernetes.io/zone", operator: "In", values: ["a", ""] },
        { key: "zone", operator: "NotIn", values: ["b"] },
        { key: "zone", operator: "Exists" },
        { key: "gpu", operator: "DoesNotExist", values: null },
        { key: "cores", operator: "Gt", values: ["4"] },
        { key: "cores", operator: "Lt", values: ["064"] },
      ),
    ),
  },
  ...["1ns", "300ms", "5m", "1h30m", "+90s"].map((text) => ({
    it: `a duration of ${text}`,
    spec: aSpec({ autohealing: { minFailingToStartDuration: text, startUpFailureThreshold: 1 } }),
  })),
  { it: "fields that a newer KubeVirt may add", spec: aSpec({ shiny: { new: true } }) },
];

describe("a legal pool", () => {
  for (const { it: name, spec } of LEGAL) {
    it(`may have ${name}`, () => expect(judge(aPool({ spec }))).toMatchObject({ legal: true }));
  }
});

interface SelectorCase {
  readonly it: string;
  readonly selector: LabelSelector;
  readonly text: string;
  readonly matches: readonly Readonly<Record<string, string>>[];
  readonly misses: readonly Readonly<Record<string, string>>[];
}

const SELECTORS: readonly SelectorCase[] = [
  { it: "nothing asked", selector: {}, text: "", matches: [{}, { a: "b" }], misses: [] },
  { it: "nulls", selector: { matchLabels: null, matchExpressions: null }, text: "", matches: [{}], misses: [] },
  {
    it: "labels, in the order of their keys",
    selector: { matchLabels: { b: "2", a: "1" } },
    text: "a=1,b=2",
    matches: [{ a: "1", b: "2", c: "3" }],
    misses: [{ a: "1" }, { a: "1", b: "3" }, {}],
  },
  {
    it: "an empty value",
    selector: { matchLabels: { a: "" } },
    text: "a=",
    matches: [{ a: "" }],
    misses: [{}, { a: "1" }],
  },
  {
    it: "In, with sorted values",
    selector: { matchExpressions: [{ key: "a", operator: "In", values: ["y", "x"] }] },
    text: "a in (x,y)",
    matches: [{ a: "x" }, { a: "y" }],
    misses: [{ a: "z" }, {}],
  },
  {
    it: "NotIn, which a missing label satisfies",
    selector: { matchExpressions: [{ key: "a", operator: "NotIn", values: ["x"] }] },
    text: "a notin (x)",
    matches: [{ a: "y" }, {}],
    misses: [{ a: "x" }],
  },
  {
    it: "Exists",
    selector: { matchExpressions: [{ key: "a", operator: "Exists" }] },
    text: "a",
    matches: [{ a: "" }],
    misses: [{}, { b: "1" }],
  },
  {
    it: "DoesNotExist",
    selector: { matchExpressions: [{ key: "a", operator: "DoesNotExist", values: [] }] },
    text: "!a",
    matches: [{}, { b: "1" }],
    misses: [{ a: "" }],
  },
  {
    it: "both kinds together",
    selector: { matchLabels: { "example.com/tier": "front" }, matchExpressions: [{ key: "a", operator: "Exists" }] },
    text: "a,example.com/tier=front",
    matches: [{ a: "1", "example.com/tier": "front" }],
    misses: [{ "example.com/tier": "front" }],
  },
  {
    it: "names that every JavaScript object has",
    selector: { matchExpressions: [{ key: "constructor", operator: "Exists" }] },
    text: "constructor",
    matches: [{ constructor: "x" }],
    misses: [{}],
  },
];

describe("a selector", () => {
  for (const { it: name, selector, text, matches, misses } of SELECTORS) {
    it(`may ask for ${name}`, () => {
      const { parsed, problems } = parseSelector(selector, "spec.selector");
      expect(problems).toEqual([]);
      expect(parsed.text).toBe(text);
      for (const labels of matches) expect(parsed.matches(labels), JSON.stringify(labels)).toBe(true);
      for (const labels of misses) expect(parsed.matches(labels), JSON.stringify(labels)).toBe(false);
    });
  }

  const BAD: readonly { readonly it: string; readonly selector: LabelSelector; readonly field: string }[] = [
    { it: "an empty key", selector: { matchLabels: { "": "x" } }, field: "f.matchLabels" },
    { it: "a key with blanks", selector: { matchLabels: { "a b": "x" } }, field: "f.matchLabels" },
    { it: "a key with two slashes", selector: { matchLabels: { "a/b/c": "x" } }, field: "f.matchLabels" },
    { it: "a key of 64 characters", selector: { matchLabels: { ["k".repeat(64)]: "x" } }, field: "f.matchLabels" },
    { it: "a value of 64 characters", selector: { matchLabels: { a: "v".repeat(64) } }, field: "f.matchLabels.a" },
    { it: "a value that would split the text", selector: { matchLabels: { a: "x,b=y" } }, field: "f.matchLabels.a" },
    {
      it: "an expression with an impossible key",
      selector: { matchExpressions: [{ key: "a b", operator: "Exists" }] },
      field: "f.matchExpressions[0].key",
    },
    {
      it: "an expression with an impossible value",
      selector: { matchExpressions: [{ key: "a", operator: "In", values: ["x", "y,z"] }] },
      field: "f.matchExpressions[0].values",
    },
    {
      it: "Exists with values",
      selector: { matchExpressions: [{ key: "a", operator: "Exists", values: ["x"] }] },
      field: "f.matchExpressions[0].values",
    },
    {
      it: "an operator in lower case",
      selector: { matchExpressions: [{ key: "a", operator: "in", values: ["x"] }] },
      field: "f.matchExpressions[0].operator",
    },
  ];
  for (const { it: name, selector, field } of BAD) {
    it(`may not have ${name}`, () => {
      const { problems } = parseSelector(selector, "f");
      expect(problems.map((problem) => problem.field)).toEqual([field]);
      expect(describeProblems(problems)).toContain(`${field}: `);
    });
  }
});
