import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { SelectionPolicy, Vm } from "../../shared/planning/model.ts";
import { describeLeftOut, filterBySelectors, rank } from "../../shared/planning/selection.ts";
import type { LabelSelector } from "../../shared/planning/selector.ts";
import { aPool, aVm, aVmSpec, deepFreeze, type Json, someVms, type VmOverrides } from "../support/builders.ts";

type SortPolicy = NonNullable<SelectionPolicy["sortPolicy"]>;
type Requirement = { readonly key: string; readonly operator: string; readonly values?: string[] };

const POLICIES = ["AscendingOrder", "DescendingOrder", "Newest", "Oldest", "Random"] as const;
const FIRST = { notReadyFirst: true } as const;
const at = (minute: number) => `2026-11-22T09:${String(minute).padStart(2, "0")}:00Z`;
const selects = (selectors: SelectionPolicy["selectors"], vm: Vm) =>
  filterBySelectors({ selectors }, [vm]).length === 1;
const namesOf = (vms: readonly Vm[]) => vms.map(({ name }) => name);

/** A machine whose instance template has these labels and this node selector. */
function selectable(ordinal: number, { labels = {}, nodeSelector }: { labels?: Json; nodeSelector?: unknown }): Vm {
  const spec = nodeSelector === undefined ? { domain: {} } : { domain: {}, nodeSelector };
  return aVm(ordinal, { spec: { template: { metadata: { labels }, spec } } });
}

interface OrderCase {
  readonly it: string;
  readonly policy: SortPolicy;
  readonly vms: readonly Vm[];
  readonly order: readonly string[];
}

const ORDERS: readonly OrderCase[] = [
  {
    it: "AscendingOrder takes the lowest ordinal first, as a number and not as text",
    policy: "AscendingOrder",
    vms: [aVm(10), aVm(2), aVm(0)],
    order: ["web-0", "web-2", "web-10"],
  },
  {
    it: "DescendingOrder takes the highest ordinal first",
    policy: "DescendingOrder",
    vms: [aVm(2), aVm(10), aVm(0)],
    order: ["web-10", "web-2", "web-0"],
  },
  {
    it: "AscendingOrder takes names that the pool does not give last, in their order",
    policy: "AscendingOrder",
    vms: [aVm(8, { name: "zebra" }), aVm(7, { name: "box" }), aVm(3)],
    order: ["web-3", "box", "zebra"],
  },
  {
    it: "DescendingOrder takes names that the pool does not give last, in their order",
    policy: "DescendingOrder",
    vms: [aVm(8, { name: "zebra" }), aVm(7, { name: "box" }), aVm(3)],
    order: ["web-3", "box", "zebra"],
  },
  {
    it: "Newest takes the youngest first",
    policy: "Newest",
    vms: [aVm(0, { created: at(1) }), aVm(1, { created: at(3) }), aVm(2, { created: at(2) })],
    order: ["web-1", "web-2", "web-0"],
  },
  {
    it: "Oldest takes the oldest first",
    policy: "Oldest",
    vms: [aVm(0, { created: at(2) }), aVm(1, { created: at(3) }), aVm(2, { created: at(1) })],
    order: ["web-2", "web-0", "web-1"],
  },
  {
    it: "Newest takes a machine of unknown age last",
    policy: "Newest",
    vms: [aVm(0, { created: "" }), aVm(1, { created: at(1) })],
    order: ["web-1", "web-0"],
  },
  {
    it: "Oldest takes a machine of unknown age last",
    policy: "Oldest",
    vms: [aVm(0, { created: "" }), aVm(1, { created: at(1) })],
    order: ["web-1", "web-0"],
  },
  // The API's times have whole seconds, so machines that were made together are of one age.
  {
    it: "Newest takes machines of one second in the order of their names (D37)",
    policy: "Newest",
    vms: [aVm(2), aVm(0), aVm(1)],
    order: ["web-0", "web-1", "web-2"],
  },
  {
    it: "Oldest takes machines of one second in the order of their names (D37)",
    policy: "Oldest",
    vms: [aVm(2), aVm(0), aVm(1)],
    order: ["web-0", "web-1", "web-2"],
  },
];

describe("the order of a sort policy", () => {
  for (const { it: name, policy, vms, order } of ORDERS) {
    it(`${name}`, () => expect(namesOf(rank(aPool(), vms, policy, FIRST))).toEqual(order));
  }

  it("is Random when there is none", () => {
    const vms = someVms(9);
    const order = rank(aPool(), vms, "Random", FIRST);
    expect(rank(aPool(), vms, undefined, FIRST)).toEqual(order);
    expect(rank(aPool(), vms, null, FIRST)).toEqual(order);
    expect(namesOf(order)).not.toEqual(namesOf(vms));
  });

  it("is, for Random, another one in another pool", () => {
    const vms = someVms(9);
    expect(rank(aPool({ uid: "another" }), vms, "Random", FIRST)).not.toEqual(rank(aPool(), vms, "Random", FIRST));
  });

  it("stays the same, for Random, while the pool changes", () => {
    const vms = someVms(9);
    const later = { ...aPool({ generation: 2, status: { replicas: 9 } }), resourceVersion: "101" };
    expect(rank(later, vms, "Random", FIRST)).toEqual(rank(aPool(), vms, "Random", FIRST));
  });

  const unready =
    (...ordinals: readonly number[]) =>
    (vm: Vm) => ({ ...vm, ready: !ordinals.includes(vm.ordinal ?? 0) });

  it("begins, for Random, with machines that are not ready", () => {
    const order = rank(aPool(), someVms(9).map(unready(3, 5)), "Random", FIRST);
    expect(order.slice(0, 2).map(({ ordinal }) => ordinal)).toEqual(expect.arrayContaining([3, 5]));
  });

  it("is kept, for AscendingOrder and DescendingOrder, whatever is ready", () => {
    const vms = someVms(4).map(unready(2));
    expect(rank(aPool(), vms, "AscendingOrder", FIRST).map(({ ordinal }) => ordinal)).toEqual([0, 1, 2, 3]);
    expect(rank(aPool(), vms, "DescendingOrder", FIRST).map(({ ordinal }) => ordinal)).toEqual([3, 2, 1, 0]);
  });

  for (const policy of ["Newest", "Oldest"] as const) {
    it(`asks for readiness, for ${policy}, only among machines of one age`, () => {
      const [older, younger] = [at(1), at(9)];
      const vms = [
        aVm(0, { created: younger }),
        aVm(1, { created: younger, ready: false }),
        aVm(2, { created: older }),
        aVm(3, { created: older, ready: false }),
      ];
      const order = rank(aPool(), vms, policy, FIRST).map(({ ordinal }) => ordinal);
      expect(order).toEqual(policy === "Newest" ? [1, 0, 3, 2] : [3, 2, 1, 0]);
    });
  }

  for (const policy of POLICIES) {
    it(`ignores readiness, for ${policy}, where it is not asked for`, () => {
      const vms = someVms(6);
      const order = namesOf(rank(aPool(), vms, policy, { notReadyFirst: false }));
      expect(namesOf(rank(aPool(), vms.map(unready(4)), policy, { notReadyFirst: false }))).toEqual(order);
    });
  }
});

const anyVm: fc.Arbitrary<Vm> = fc
  .record({
    ordinal: fc.nat(12),
    name: fc.constantFrom(undefined, undefined, undefined, "box", "zebra"),
    created: fc.constantFrom(at(1), at(1), at(2), at(3), ""),
    ready: fc.boolean(),
    uid: fc.nat(30),
  })
  .map(({ ordinal, name, uid, ...rest }) =>
    aVm(ordinal, { ...rest, uid: `uid-${uid}`, ...(name === undefined ? {} : { name }) } satisfies VmOverrides),
  );
const anyVms = fc.uniqueArray(anyVm, { selector: ({ uid }) => uid, maxLength: 12 });
const shuffled = anyVms.chain((vms) =>
  fc.record({ vms: fc.constant(vms), others: fc.shuffledSubarray([...vms], { minLength: vms.length }) }),
);

describe("every order", () => {
  for (const policy of POLICIES) {
    it(`of ${policy} has each machine once, and is the same whatever the order of the list (D37)`, () =>
      fc.assert(
        fc.property(shuffled, fc.boolean(), ({ vms, others }, notReadyFirst) => {
          const order = rank(aPool(), deepFreeze(vms), policy, { notReadyFirst });
          expect(rank(aPool(), others, policy, { notReadyFirst })).toEqual(order);
          expect(new Set(order)).toEqual(new Set(vms));
          expect(order).toHaveLength(vms.length);
        }),
      ));

    // Were two machines equal, or three in a circle, leaving one out would move others.
    it(`of ${policy} is total: two machines are in it as they are beside others`, () =>
      fc.assert(
        fc.property(anyVms, fc.nat(), (vms, index) => {
          const without = vms.filter((_, other) => other !== index % Math.max(1, vms.length));
          const order = rank(aPool(), vms, policy, FIRST);
          expect(rank(aPool(), without, policy, FIRST)).toEqual(order.filter((vm) => without.includes(vm)));
        }),
      ));
  }
});

interface NodeCase {
  readonly it: string;
  readonly requirement: Requirement;
  readonly matches: readonly Json[];
  readonly misses: readonly Json[];
}

const NODES: readonly NodeCase[] = [
  {
    it: "In",
    requirement: { key: "zone", operator: "In", values: ["a", "b"] },
    matches: [{ zone: "a" }, { zone: "b", rack: "1" }],
    misses: [{ zone: "c" }, { rack: "a" }, {}],
  },
  {
    it: "NotIn, which a missing key satisfies",
    requirement: { key: "zone", operator: "NotIn", values: ["a", "b"] },
    matches: [{ zone: "c" }, { rack: "a" }, {}],
    misses: [{ zone: "a" }, { zone: "b" }],
  },
  {
    it: "Exists",
    requirement: { key: "zone", operator: "Exists" },
    matches: [{ zone: "" }, { zone: "a" }],
    misses: [{}, { rack: "1" }],
  },
  {
    it: "DoesNotExist",
    requirement: { key: "zone", operator: "DoesNotExist", values: [] },
    matches: [{}, { rack: "1" }],
    misses: [{ zone: "" }],
  },
  {
    it: "Gt, as whole numbers and not as text",
    requirement: { key: "cores", operator: "Gt", values: ["9"] },
    matches: [{ cores: "10" }, { cores: "+10" }, { cores: "010" }, { cores: "9223372036854775807" }],
    misses: [{ cores: "9" }, { cores: "8" }, { cores: "-10" }, { cores: "10.5" }, { cores: "many" }, { cores: "" }, {}],
  },
  {
    it: "Lt, as whole numbers and not as text",
    requirement: { key: "cores", operator: "Lt", values: ["10"] },
    matches: [{ cores: "9" }, { cores: "-1" }, { cores: "0" }],
    misses: [{ cores: "10" }, { cores: "11" }, { cores: "9e0" }, { cores: "0x1" }, { cores: " 9" }, {}],
  },
  {
    it: "Gt beyond what a JavaScript number tells apart",
    requirement: { key: "id", operator: "Gt", values: ["9007199254740992"] },
    matches: [{ id: "9007199254740993" }],
    misses: [{ id: "9007199254740992" }, { id: "9223372036854775808" }],
  },
  {
    it: "a key that every JavaScript object has",
    requirement: { key: "constructor", operator: "DoesNotExist" },
    matches: [{}],
    misses: [{ constructor: "x" }],
  },
];

describe("nodeSelectorRequirementMatcher", () => {
  for (const { it: name, requirement, matches, misses } of NODES) {
    it(`knows ${name}`, () => {
      const selectors = { nodeSelectorRequirementMatcher: [requirement] };
      for (const nodeSelector of matches)
        expect(selects(selectors, selectable(0, { nodeSelector })), JSON.stringify(nodeSelector)).toBe(true);
      for (const nodeSelector of misses)
        expect(selects(selectors, selectable(0, { nodeSelector })), JSON.stringify(nodeSelector)).toBe(false);
    });
  }

  it("asks for all of its requirements", () => {
    const nodeSelectorRequirementMatcher = [
      { key: "zone", operator: "In", values: ["a"] },
      { key: "gpu", operator: "DoesNotExist" },
    ];
    const chosen = [{ zone: "a" }, { zone: "a", gpu: "1" }, { zone: "b" }].map((nodeSelector) =>
      selects({ nodeSelectorRequirementMatcher }, selectable(0, { nodeSelector })),
    );
    expect(chosen).toEqual([true, false, false]);
  });

  it("takes a machine without a node selector for one that asks nothing", () => {
    const selectors = { nodeSelectorRequirementMatcher: [{ key: "zone", operator: "DoesNotExist" }] };
    for (const nodeSelector of [undefined, null, {}]) {
      expect(selects(selectors, selectable(0, { nodeSelector }))).toBe(true);
    }
  });

  it("does not match a machine whose node selector is not what the API promises", () => {
    const selectors = { nodeSelectorRequirementMatcher: [{ key: "zone", operator: "DoesNotExist" }] };
    for (const nodeSelector of ["zone=a", [], { zone: 1 }]) {
      expect(selects(selectors, selectable(0, { nodeSelector }))).toBe(false);
    }
  });

  it("is not asked of the labels of the instance template", () => {
    const selectors = { nodeSelectorRequirementMatcher: [{ key: "zone", operator: "Exists" }] };
    expect(selects(selectors, selectable(0, { labels: { zone: "a" } }))).toBe(false);
  });
});

const LABEL_CASES: readonly {
  readonly it: string;
  readonly selector: LabelSelector;
  readonly chosen: readonly string[];
}[] = [
  { it: "labels", selector: { matchLabels: { tier: "front" } }, chosen: ["web-0"] },
  {
    it: "In",
    selector: { matchExpressions: [{ key: "tier", operator: "In", values: ["front", "back"] }] },
    chosen: ["web-0", "web-1"],
  },
  {
    it: "NotIn",
    selector: { matchExpressions: [{ key: "tier", operator: "NotIn", values: ["front"] }] },
    chosen: ["web-1", "web-2"],
  },
  { it: "Exists", selector: { matchExpressions: [{ key: "tier", operator: "Exists" }] }, chosen: ["web-0", "web-1"] },
  {
    it: "DoesNotExist",
    selector: { matchExpressions: [{ key: "tier", operator: "DoesNotExist" }] },
    chosen: ["web-2"],
  },
  { it: "nothing", selector: {}, chosen: ["web-0", "web-1", "web-2"] },
];

describe("labelSelector", () => {
  const vms = [
    selectable(0, { labels: { tier: "front" } }),
    selectable(1, { labels: { tier: "back" } }),
    selectable(2, {}),
  ];
  for (const { it: name, selector, chosen } of LABEL_CASES) {
    it(`asks for ${name}`, () => {
      expect(namesOf(filterBySelectors({ selectors: { labelSelector: selector } }, vms))).toEqual(chosen);
    });
  }

  // The reference's documentation says "labels of the VM"; what it matches is the template of the instance.
  it("is asked of the labels of the instance template, not of the machine's own (D36)", () => {
    const vm = aVm(0, { labels: { app: "web", tier: "front" }, spec: aVmSpec("web-1") });
    expect(selects({ labelSelector: { matchLabels: { tier: "front" } } }, vm)).toBe(false);
    expect(
      selects({ labelSelector: { matchLabels: { tier: "front" } } }, selectable(0, { labels: { tier: "front" } })),
    ).toBe(true);
  });

  it("matches machines without labels where none are asked for", () => {
    const vm = aVm(0, { spec: { template: {} } });
    expect(selects({ labelSelector: { matchExpressions: [{ key: "tier", operator: "DoesNotExist" }] } }, vm)).toBe(
      true,
    );
    expect(selects({ labelSelector: { matchLabels: { tier: "front" } } }, vm)).toBe(false);
  });
});

describe("selectors", () => {
  const front = { matchLabels: { tier: "front" } };
  const inA = [{ key: "zone", operator: "In", values: ["a"] }];
  const vms = [
    selectable(0, { labels: { tier: "front" }, nodeSelector: { zone: "a" } }),
    selectable(1, { labels: { tier: "front" }, nodeSelector: { zone: "b" } }),
    selectable(2, { labels: { tier: "back" }, nodeSelector: { zone: "a" } }),
  ];

  it("match what both match where both are given", () => {
    const selectors = { labelSelector: front, nodeSelectorRequirementMatcher: inA };
    expect(namesOf(filterBySelectors({ selectors }, vms))).toEqual(["web-0"]);
  });

  it("match everything where none is given, whether or not its spec was read", () => {
    const unread = [...vms, aVm(3, { spec: null })];
    const NONE = [
      undefined,
      null,
      {},
      { selectors: null },
      { selectors: {} },
      { selectors: { labelSelector: null, nodeSelectorRequirementMatcher: null } },
    ];
    for (const policy of NONE) expect(filterBySelectors(policy, unread)).toEqual(unread);
  });

  it("do not match a machine whose spec was not read, whatever they ask for", () => {
    const vm = aVm(0, { spec: null });
    expect(selects({ labelSelector: {} }, vm)).toBe(false);
    expect(selects({ labelSelector: { matchExpressions: [{ key: "a", operator: "DoesNotExist" }] } }, vm)).toBe(false);
    expect(selects({ nodeSelectorRequirementMatcher: [{ key: "a", operator: "DoesNotExist" }] }, vm)).toBe(false);
  });

  const ILLEGAL: readonly { readonly it: string; readonly selectors: NonNullable<SelectionPolicy["selectors"]> }[] = [
    {
      it: "an unknown operator of a label selector",
      selectors: { labelSelector: { matchExpressions: [{ key: "tier", operator: "Is", values: ["front"] }] } },
    },
    {
      it: "an unknown operator of a node requirement",
      selectors: { nodeSelectorRequirementMatcher: [{ key: "zone", operator: "Is", values: ["a"] }] },
    },
    {
      it: "a comparison with what is no number",
      selectors: { nodeSelectorRequirementMatcher: [{ key: "zone", operator: "Lt", values: ["many"] }] },
    },
    { it: "a field that this version does not know", selectors: { fieldSelector: { "metadata.name": "web-0" } } },
  ];
  for (const { it: name, selectors } of ILLEGAL) {
    it(`match nothing with ${name}`, () => expect(filterBySelectors({ selectors }, vms)).toEqual([]));
  }

  it("say nothing with a field that is null", () => {
    expect(filterBySelectors({ selectors: { fieldSelector: null } }, vms)).toEqual(vms);
  });

  it("say how many machines each of them leaves out", () => {
    const policy = { selectors: { labelSelector: front, nodeSelectorRequirementMatcher: inA } };
    const unread = aVm(3, { spec: null });
    expect(describeLeftOut(policy, [...vms, unread])).toBe(
      "labelSelector leaves out 1, nodeSelectorRequirementMatcher leaves out 1, the spec of 1 cannot be read",
    );
    expect(describeLeftOut(policy, vms.slice(0, 1))).toBe("");
    expect(describeLeftOut(undefined, [unread])).toBe("");
  });
});
