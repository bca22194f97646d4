import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fnv1a } from "../../shared/planning/hash.ts";
import { canonicalJson } from "../../shared/planning/json.ts";
import { parsePool, parseRevision, parseVm, poolSpecSchema, type Revision } from "../../shared/planning/model.ts";
import { isRevisionOf, ordinalOf, revisionName, vmName } from "../../shared/planning/names.ts";
import { buildRevision, chooseRevision, type KnownRevisions, namingOf } from "../../shared/planning/revisions.ts";
import { anOwner, aPool, aPoolWith, aRevision, aSpec, type Json, LABELS, POOL_UID } from "../support/builders.ts";
import { kindsOf, planOf } from "./plans.ts";

const pool = aPool({ generation: 3 });
const SUFFIXED = `web-3-${fnv1a(POOL_UID).slice(0, 8)}`;

function aThird(data: unknown, owner = POOL_UID): Revision {
  return aRevision({ name: "web-3", generation: 3, owner, data });
}

/** What is chosen for generation 3 when only the revisions named after it can be there. */
function choiceWith(existing: Revision | undefined) {
  const spec = poolSpecSchema.parse(aSpec());
  const known = new Map([
    ["web-3", existing ?? "absent"],
    [SUFFIXED, "absent"],
  ] as const);
  return chooseRevision(pool, spec, { known, preferred: [] });
}

const CHOICES: readonly {
  readonly it: string;
  readonly existing: Revision | undefined;
  readonly name: string;
  readonly kind: "existing" | "missing";
}[] = [
  { it: "is created when there is none", existing: undefined, name: "web-3", kind: "missing" },
  { it: "is used again when it is this pool's own", existing: aThird(aSpec()), name: "web-3", kind: "existing" },
  {
    it: "is used again though replicas and strategies differ",
    existing: aThird(aSpec({ replicas: 9, paused: true, scaleInStrategy: { unmanaged: {} } })),
    name: "web-3",
    kind: "existing",
  },
  {
    it: "is not trusted when it is an earlier pool's (D18)",
    existing: aThird(aSpec(), "earlier-uid"),
    name: SUFFIXED,
    kind: "missing",
  },
  {
    it: "is not trusted when its template is another one",
    existing: aThird(aSpec({ virtualMachineTemplate: { metadata: { labels: LABELS }, spec: { template: {} } } })),
    name: SUFFIXED,
    kind: "missing",
  },
  {
    it: "is used again though its naming differs, where nothing is named by it",
    existing: aThird(aSpec({ nameGeneration: { appendIndexToSecretRefs: true } })),
    name: "web-3",
    kind: "existing",
  },
  { it: "is not trusted when it holds nothing (D48)", existing: aThird(undefined), name: SUFFIXED, kind: "missing" },
];

describe("the revision of a generation", () => {
  for (const { it: name, existing, ...choice } of CHOICES) {
    it(name, () => expect(choiceWith(existing)).toEqual(choice));
  }

  it("is the same whatever the order of its fields and its nulls", () => {
    const spec = { ...aSpec(), nameGeneration: null };
    const turned = Object.fromEntries(Object.entries(spec).toReversed());
    expect(choiceWith(aThird(turned))).toEqual({ name: "web-3", kind: "existing" });
  });

  it("is read under its name, and under the other where the first is taken, before anything is made", () => {
    const spec = poolSpecSchema.parse(aSpec());
    const choose = (known: KnownRevisions) => chooseRevision(pool, spec, { known, preferred: [] });
    expect(choose(new Map())).toEqual({ kind: "unread", names: ["web-3"] });
    const taken = new Map([["web-3", aThird(aSpec(), "earlier-uid")]]);
    expect(choose(taken)).toEqual({ kind: "unread", names: [SUFFIXED] });
  });

  it("fits a label value, which has 63 characters: the suffix, too", () => {
    const choose = (length: number, isTaken: boolean) => {
      const long = aPool({ name: "w".repeat(length), generation: 3, claim: null });
      const name = revisionName(long.name, 3);
      const suffixed = `${name}-${fnv1a(POOL_UID).slice(0, 8)}`;
      const own = isTaken ? aRevision({ name, generation: 3, owner: "earlier-uid" }) : "absent";
      const known: KnownRevisions = new Map([[name, own] as const, [suffixed, "absent"] as const]);
      return chooseRevision(long, poolSpecSchema.parse(aSpec()), { known, preferred: [] });
    };
    expect(choose(61, false)).toEqual({ kind: "missing", name: `${"w".repeat(61)}-3` });
    expect(choose(62, false)).toMatchObject({ kind: "blocked", why: expect.stringContaining("more than 63") });
    const suffixed = `${"w".repeat(52)}-3-${fnv1a(POOL_UID).slice(0, 8)}`;
    expect(choose(52, true)).toEqual({ kind: "missing", name: suffixed });
    expect(choose(53, true)).toMatchObject({ kind: "blocked", why: expect.stringContaining("is taken by one") });
  });

  it("is created before the machines that name it", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 1 }), revision: aRevision({ owner: "earlier-uid" }) });
    expect(kindsOf(plan)).toEqual(["writeClaim", "createRevision", "createVm"]);
    expect(plan.actions.at(1)).toMatchObject({ name: `web-1-${fnv1a(POOL_UID).slice(0, 8)}` });
    expect(plan.actions.at(2)).toMatchObject({ revision: `web-1-${fnv1a(POOL_UID).slice(0, 8)}` });
  });

  it("is not created when it is there", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 1 }), revision: aRevision() });
    expect(kindsOf(plan)).toEqual(["writeClaim", "createVm"]);
  });

  it("holds the complete spec, and is owned by the pool", () => {
    expect(buildRevision(pool, "pool.kubevirt.io/v1beta1", "web-3")).toEqual({
      apiVersion: "apps/v1",
      kind: "ControllerRevision",
      metadata: { name: "web-3", namespace: "default", ownerReferences: [anOwner(POOL_UID)] },
      revision: 3,
      data: aSpec(),
    });
  });

  it("is found again by what was created", () => {
    const built = buildRevision(pool, "pool.kubevirt.io/v1alpha1", "web-3");
    const stored = parseRevision({ ...built, metadata: { ...built.metadata, uid: "r", resourceVersion: "1" } });
    expect(choiceWith(stored)).toEqual({ name: "web-3", kind: "existing" });
  });
});

describe("the naming in a claim", () => {
  const [configMaps, secrets] = [{ appendIndexToConfigMapRefs: true }, { appendIndexToSecretRefs: true }];
  it.each([
    { nameGeneration: undefined, text: "+" },
    { nameGeneration: { appendIndexToConfigMapRefs: false, appendIndexToSecretRefs: false }, text: "+" },
    { nameGeneration: configMaps, text: "configMaps+" },
    { nameGeneration: secrets, text: "+secrets" },
    { nameGeneration: { ...configMaps, ...secrets }, text: "configMaps+secrets" },
  ])("is $text of $nameGeneration for ever, as claims are compared with it", ({ nameGeneration, text }) => {
    expect(namingOf(poolSpecSchema.parse(aSpec({ nameGeneration })))).toBe(text);
  });
});

describe("names", () => {
  it("of machines are the pool's and the ordinal", () => {
    expect([vmName("web", 0), vmName("web-1", 20)]).toEqual(["web-0", "web-1-20"]);
    expect(revisionName("web", 12)).toBe("web-12");
  });

  const ORDINALS: readonly (readonly [string, number | undefined])[] = [
    ["web-0", 0],
    ["web-10", 10],
    ["web-999999999", 999_999_999],
    ["web-1000000000", undefined],
    ["web-00", undefined],
    ["web-01", undefined],
    ["web--1", undefined],
    ["web-1x", undefined],
    ["web-", undefined],
    ["web", undefined],
    ["web-1-2", undefined],
    ["my-web-1", undefined],
    ["web-1.5", undefined],
    ["web- 1", undefined],
  ];
  for (const [name, ordinal] of ORDINALS) {
    it(`of ${JSON.stringify(name)} ${ordinal === undefined ? "have no ordinal" : `have the ordinal ${ordinal}`}`, () =>
      expect(ordinalOf("web", name)).toBe(ordinal));
  }

  const REVISIONS: readonly (readonly [string | undefined, boolean])[] = [
    ["web-1", true],
    ["web-12-0a1b2c3d", true],
    ["web-1-2", false],
    ["web-", false],
    ["web", false],
    ["web-blue-1", false],
    ["my-web-1", false],
    [undefined, false],
  ];
  for (const [label, own] of REVISIONS) {
    it(`say that the revision ${label} is ${own ? "" : "not "}the pool's`, () =>
      expect(isRevisionOf("web", label)).toBe(own));
  }
});

/** FNV-1a and the finalizer of splitmix64, as their authors wrote them down. */
function plainHash(text: string): string {
  const times = (a: bigint, b: bigint) => BigInt.asUintN(64, a * b);
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(text)) hash = times(hash ^ BigInt(byte), 0x100000001b3n);
  hash = times(hash ^ (hash >> 30n), 0xbf58476d1ce4e5b9n);
  hash = times(hash ^ (hash >> 27n), 0x94d049bb133111ebn);
  return (hash ^ (hash >> 31n)).toString(16).padStart(16, "0");
}

describe("the hash", () => {
  it("never changes, as orders and slots hang on it", () => {
    expect([fnv1a(""), fnv1a("web"), fnv1a("wäb")]).toEqual([
      "f52a15e9a9b5e89b",
      "c850f03f92a375f3",
      "08a004dc4c3de5a2",
    ]);
  });

  it("is what arithmetic of 64 bits gives, whatever the text", () => {
    // Any sign, halves of characters among them. The library's own list of them takes seconds to make.
    const sign = fc.integer({ min: 0, max: 0x10_ffff }).map((point) => String.fromCodePoint(point));
    const texts = fc.array(sign, { maxLength: 300 }).map((signs) => signs.join(""));
    fc.assert(fc.property(texts, (text) => fnv1a(text) === plainHash(text)));
  });

  it("is 16 hexadecimal digits", () => {
    for (let index = 0; index < 500; index += 1) expect(fnv1a(`uid-${index}`)).toMatch(/^[0-9a-f]{16}$/);
  });

  it("spreads its first digit evenly over texts that differ at the end", () => {
    const counts = new Map<string, number>();
    for (let index = 0; index < 1_600; index += 1) {
      const digit = fnv1a(`11111111-aaaa-4bbb-8ccc-${index}`).slice(0, 1);
      counts.set(digit, (counts.get(digit) ?? 0) + 1);
    }
    expect(counts.size).toBe(16);
    expect(Math.min(...counts.values())).toBeGreaterThan(50);
  });

  it("keeps all 2,000 of 2,000 apart", () => {
    expect(new Set(Array.from({ length: 2_000 }, (_, index) => fnv1a(`${index}`))).size).toBe(2_000);
  });
});

describe("canonical JSON", () => {
  const SAME: readonly (readonly [unknown, unknown])[] = [
    [
      { a: 1, b: 2 },
      { b: 2, a: 1 },
    ],
    [{ a: null }, {}],
    [{ a: { b: undefined } }, { a: {} }],
    [
      [1, { b: 1, a: 2 }],
      [1, { a: 2, b: 1 }],
    ],
  ];
  for (const [a, b] of SAME) {
    it(`is the same for ${JSON.stringify(a)} and ${JSON.stringify(b)}`, () =>
      expect(canonicalJson(a)).toBe(canonicalJson(b)));
  }

  const DIFFERENT: readonly (readonly [unknown, unknown])[] = [
    [
      [1, 2],
      [2, 1],
    ],
    [{ a: "1" }, { a: 1 }],
    [{ a: "" }, {}],
    [{ a: false }, {}],
    [{ a: { b: 1 } }, { a: { c: 1 } }],
  ];
  for (const [a, b] of DIFFERENT) {
    it(`is not the same for ${JSON.stringify(a)} and ${JSON.stringify(b)}`, () =>
      expect(canonicalJson(a)).not.toBe(canonicalJson(b)));
  }
});

describe("an object of the API", () => {
  const metadata: Json = { name: "web", namespace: "default", uid: "u", resourceVersion: "1", generation: 1 };

  it("is a pool though its status is garbage", () => {
    expect(parsePool({ metadata, spec: {}, status: { replicas: "many" } })).toMatchObject({
      name: "web",
      status: undefined,
    });
  });

  for (const field of ["name", "namespace", "uid", "resourceVersion", "generation"]) {
    it(`is no pool without ${field}`, () =>
      expect(parsePool({ metadata: { ...metadata, [field]: undefined } })).toBeUndefined());
  }

  for (const field of ["name", "namespace", "uid", "resourceVersion"]) {
    it(`is no machine without ${field}`, () =>
      expect(parseVm({ metadata: { ...metadata, [field]: undefined } }, "web")).toBeUndefined());
  }

  const READY: readonly (readonly [unknown, boolean])[] = [
    [undefined, false],
    [{}, false],
    [{ conditions: null }, false],
    [{ conditions: [{ type: "Ready", status: "True" }] }, true],
    [{ conditions: [{ type: "Ready", status: "False" }] }, false],
    [{ conditions: [{ type: "Ready", status: "Unknown" }] }, false],
    [{ conditions: [{ type: "LiveMigratable", status: "True" }] }, false],
  ];
  for (const [status, ready] of READY) {
    it(`is ${ready ? "" : "not "}ready with the status ${JSON.stringify(status)}`, () =>
      expect(parseVm({ metadata, status }, "web")?.ready).toBe(ready));
  }
});
