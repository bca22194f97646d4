/**
 * Walks through a pool's spec on the cluster in memory, with nothing going wrong: from each value of a property to each other and back,
 * from legal to illegal and back, and through specs in which every two values of two properties meet. After each step the functions have
 * to come to rest within their bound, in the state that the spec says, under the invariants.
 */

import type { PassResult } from "../../shared/clusters/reconcile-pool.ts";
import type { WakeUp } from "../../shared/events/wake-ups.ts";
import { canonicalJson, isRecord } from "../../shared/planning/json.ts";
import { parsePool } from "../../shared/planning/model.ts";
import {
  CLAIM_ANNOTATION,
  GUARDED_ANNOTATION,
  HEALING_ANNOTATION,
  REVISION_LABEL,
  REVOKED_ANNOTATION,
  UPDATED_ANNOTATION,
} from "../../shared/planning/names.ts";
import { judge } from "../../shared/planning/verdict.ts";
import { collectGarbage } from "./garbage.ts";
import { createJudge, judgeClaims, mismatches } from "./invariants.ts";
import type { Kind } from "./kinds.ts";
import { kubevirtSteps, runStrategyOf } from "./kubevirt.ts";
import { isTerminating, type KubeObject, ownersOf, recordAt } from "./objects.ts";
import { createRandom, type Random } from "./random.ts";
import { NAMESPACE, objects } from "./users.ts";
import { createWorld, type World } from "./world.ts";

const POOL = "web";
const POOL_PATH = `/apis/pool.kubevirt.io/v1beta1/namespaces/${NAMESPACE}/virtualmachinepools`;
const PLACE = { namespace: NAMESPACE, name: POOL } as const;
/** Of one step; a handler that goes on for ever is a bug. */
const TURNS_MAX = 20_000;
const MINUTE_MS = 60_000;
/** Within these the schedule looks at every pool. */
const MINUTES_MAX = 12;

type Json = Readonly<Record<string, unknown>>;

/** A value of a property, as a change of the whole spec. */
export interface Value {
  readonly name: string;
  readonly set: (spec: Json) => Json;
}

/** What becomes of an illegal value. */
export interface IllegalValue extends Value {
  /** `refused` by the schema, so that it never comes to be, or `held`: the pool stays as it is until somebody repairs it. */
  readonly fate: "refused" | "held";
}

export interface Property {
  readonly name: string;
  /** The first is that of a pool that says nothing, or the simplest. */
  readonly legal: readonly Value[];
  readonly illegal: readonly IllegalValue[];
  /** The most passes that any change of it takes until the pool is at rest, the last of which finds nothing to do. */
  readonly passesMax: number;
  /** What a change of it may cost, where nothing else is waiting: machines, their guests, or neither. */
  readonly costs: "machines" | "guests" | "nothing";
}

const BASE: Json = {
  replicas: 3,
  selector: { matchLabels: { pool: POOL } },
  virtualMachineTemplate: {
    metadata: { labels: { pool: POOL } },
    spec: {
      running: true,
      template: {
        metadata: { labels: { pool: POOL } },
        spec: {
          terminationGracePeriodSeconds: 0,
          volumes: [
            { name: "config", configMap: { name: "config" } },
            { name: "secret", secret: { secretName: "secret" } },
          ],
        },
      },
    },
  },
};

/** With the value at the path; undefined takes it away. */
function put(object: Json, [field = "", ...rest]: readonly string[], value: unknown): Json {
  const { [field]: present, ...others } = object;
  const next = rest.length === 0 ? value : put(isRecord(present) ? present : {}, rest, value);
  return next === undefined ? others : { ...others, [field]: next };
}

function at(path: string, value: unknown): Value {
  const name = value === undefined ? `no ${path}` : `${path}: ${JSON.stringify(value)}`;
  return { name, set: (spec) => put(spec, path.split("."), value) };
}

/** Several values, one after the other, under one name. */
function both(...values: readonly Value[]): Value {
  const set = (spec: Json) => values.reduce((changed, value) => value.set(changed), spec);
  return { name: values.map(({ name }) => name).join(", "), set };
}

const refused = (value: Value): IllegalValue => ({ ...value, fate: "refused" });
const held = (value: Value): IllegalValue => ({ ...value, fate: "held" });

const TEMPLATE = "virtualMachineTemplate";
const GUEST = `${TEMPLATE}.spec.template`;
const SORTS = ["AscendingOrder", "DescendingOrder", "Newest", "Oldest", "Random"] as const;
const TIER = { labelSelector: { matchLabels: { tier: "a" } } } as const;
const WRONG = { labelSelector: { matchExpressions: [{ key: "tier", operator: "Like" }] } } as const;
/** In the long form; machines have no node selector, so none is chosen. */
const NODES = {
  labelSelector: { matchExpressions: [{ key: "tier", operator: "In", values: ["a"] }] },
  nodeSelectorRequirementMatcher: [{ key: "disk", operator: "In", values: ["fast"] }],
} as const;
const sorted = (sortPolicy: string) => ({ proactive: { selectionPolicy: { sortPolicy } } });
const selecting = (selectors: object) => ({ proactive: { selectionPolicy: { selectors } } });
const run = (running: boolean | undefined, runStrategy?: string) =>
  both(at(`${TEMPLATE}.spec.running`, running), at(`${TEMPLATE}.spec.runStrategy`, runStrategy));
const disk = (name: string | undefined, storage: string) => ({
  metadata: name === undefined ? {} : { name },
  spec: { storage: { resources: { requests: { storage } } } },
});
const expression = (operator: string, values?: readonly string[]) => ({
  matchLabels: { pool: POOL },
  matchExpressions: [{ key: "pool", operator, ...(values === undefined ? {} : { values }) }],
});

/** Every property of a pool's spec. */
export const PROPERTIES: readonly Property[] = [
  {
    name: "replicas",
    legal: [at("replicas", 3), ...[undefined, 0, 1, 2, 5].map((value) => at("replicas", value))],
    illegal: [-1, 1.5, "3", 2 ** 31].map((value) => refused(at("replicas", value))),
    passesMax: 4,
    costs: "machines",
  },
  {
    name: "paused",
    legal: [undefined, false, true].map((value) => at("paused", value)),
    illegal: [refused(at("paused", "yes"))],
    passesMax: 3,
    costs: "nothing",
  },
  {
    name: "selector",
    legal: [
      at("selector", { matchLabels: { pool: POOL } }),
      at("selector", expression("Exists")),
      at("selector", expression("In", ["other", POOL])),
      at("selector", {}),
    ],
    illegal: [
      ...[{ matchLabels: { pool: "other" } }, expression("Like"), expression("In"), expression("Exists", ["a"])].map(
        (value) => held(at("selector", value)),
      ),
      refused(at("selector", undefined)),
      refused(at("selector", { matchLabels: { pool: 1 } })),
    ],
    passesMax: 3,
    costs: "nothing",
  },
  {
    name: "labels",
    legal: [undefined, "a", "b"].map((value) => at(`${TEMPLATE}.metadata.labels.kind`, value)),
    illegal: [held(at(`${TEMPLATE}.metadata.labels.pool`, "other")), held(at(`${TEMPLATE}.metadata`, undefined))],
    passesMax: 3,
    costs: "nothing",
  },
  {
    name: "annotations",
    legal: [undefined, "1", "2"].map((value) => at(`${TEMPLATE}.metadata.annotations.edited`, value)),
    illegal: [held(at(`${TEMPLATE}.metadata.annotations.edited`, 1))],
    passesMax: 3,
    costs: "nothing",
  },
  {
    name: "running",
    legal: [
      run(true),
      run(false),
      ...["Always", "Halted", "Manual", "RerunOnFailure"].map((strategy) => run(undefined, strategy)),
    ],
    illegal: [refused(at(`${TEMPLATE}.spec.running`, "yes"))],
    passesMax: 4,
    costs: "guests",
  },
  {
    name: "guest",
    legal: [
      at(`${GUEST}.spec.terminationGracePeriodSeconds`, 0),
      at(`${GUEST}.spec.terminationGracePeriodSeconds`, 1),
      at(`${GUEST}.metadata.labels.tier`, "a"),
      at(`${GUEST}.metadata.labels.tier`, "b"),
    ],
    illegal: [refused(at(GUEST, undefined)), held(at(`${GUEST}.metadata.labels`, { tier: 1 }))],
    passesMax: 4,
    costs: "guests",
  },
  {
    name: "dataVolumeTemplates",
    legal: [
      undefined,
      [],
      [disk("disk", "1Gi")],
      [disk("disk", "2Gi")],
      [disk("disk", "1Gi"), disk("more", "1Gi")],
    ].map((value) => at(`${TEMPLATE}.spec.dataVolumeTemplates`, value)),
    illegal: [held(at(`${TEMPLATE}.spec.dataVolumeTemplates`, [disk(undefined, "1Gi")]))],
    passesMax: 5,
    costs: "machines",
  },
  {
    name: "nameGeneration",
    legal: [
      undefined,
      {},
      { appendIndexToConfigMapRefs: true },
      { appendIndexToSecretRefs: true },
      { appendIndexToConfigMapRefs: true, appendIndexToSecretRefs: true },
    ].map((value) => at("nameGeneration", value)),
    illegal: [refused(at("nameGeneration", { appendIndexToSecretRefs: "yes" }))],
    passesMax: 4,
    costs: "guests",
  },
  {
    name: "maxUnavailable",
    legal: [undefined, 1, 2, "1%", "50%", "100%"].map((value) => at("maxUnavailable", value)),
    illegal: [
      ...[0, -1, "0%", "101%", "half", "50", ""].map((value) => held(at("maxUnavailable", value))),
      refused(at("maxUnavailable", true)),
    ],
    passesMax: 2,
    costs: "nothing",
  },
  {
    name: "scaleInStrategy",
    legal: [
      ...[undefined, {}, { proactive: {} }, ...SORTS.map(sorted), selecting(TIER), selecting(NODES)],
      { unmanaged: {} },
      ...["Disabled", "Offline", "Online"].map((statePreservation) => ({ proactive: { statePreservation } })),
      ...[{ opportunistic: {} }, { opportunistic: { statePreservation: "Offline" } }],
    ].map((value) => at("scaleInStrategy", value)),
    illegal: [
      held(at("scaleInStrategy", { unmanaged: {}, proactive: {} })),
      held(at("scaleInStrategy", selecting(WRONG))),
      refused(at("scaleInStrategy", sorted("Smallest"))),
      refused(at("scaleInStrategy", { proactive: { statePreservation: "Sometimes" } })),
    ],
    passesMax: 2,
    costs: "nothing",
  },
  {
    name: "updateStrategy",
    legal: [
      ...[undefined, {}, { proactive: {} }, ...SORTS.map(sorted), selecting(TIER), selecting(NODES)],
      selecting({ nodeSelectorRequirementMatcher: [{ key: "disk", operator: "DoesNotExist" }] }),
      ...[{ opportunistic: {} }, { unmanaged: {} }],
    ].map((value) => at("updateStrategy", value)),
    illegal: [
      held(at("updateStrategy", { opportunistic: {}, proactive: {} })),
      held(at("updateStrategy", selecting(WRONG))),
      held(at("updateStrategy", selecting({ nodeSelectorRequirementMatcher: [{ key: "disk", operator: "Like" }] }))),
      refused(at("updateStrategy", sorted("Smallest"))),
    ],
    passesMax: 2,
    costs: "nothing",
  },
  {
    name: "autohealing",
    legal: [
      ...[undefined, {}, { startUpFailureThreshold: 1 }, { startUpFailureThreshold: 5 }],
      ...[{ minFailingToStartDuration: "1m" }, { startUpFailureThreshold: 2, minFailingToStartDuration: "90s" }],
    ].map((value) => at("autohealing", value)),
    illegal: [
      ...["soon", "0s", "-5m", "5"].map((minFailingToStartDuration) =>
        held(at("autohealing", { minFailingToStartDuration })),
      ),
      refused(at("autohealing", { startUpFailureThreshold: 0 })),
    ],
    passesMax: 2,
    costs: "nothing",
  },
];

/** The spec of a simple pool with each of their legal values. */
export function specsOf(properties: readonly Property[]): readonly Json[] {
  return properties.flatMap(({ legal }) => legal.map((value) => specOf([value])));
}

/** What one walk found. */
export interface Walked {
  /** What is wrong, with the steps that led to it; undefined when nothing is. */
  readonly failure: string | undefined;
  readonly steps: number;
  /** The most passes that a step took. */
  readonly passesMost: number;
}

interface Walk {
  readonly world: World;
  readonly judge: () => string | undefined;
  readonly trace: string[];
  passes: number;
  passesMost: number;
  steps: number;
}

/** Each way from one legal value of the property to another, and back; everything else as a simple pool has it. */
export async function walkLegal({ legal, passesMax, costs }: Property, kinds: readonly Kind[]): Promise<Walked> {
  const digests = new Map<Value, string>();
  const arrive = async (pool: Walk, value: Value) => {
    const before = identitiesOf(pool.world);
    await step(pool, { values: [value], passesMax });
    expectUntouched(before, identitiesOf(pool.world), costs);
    const digest = digestOf(pool.world);
    expectSame("the state at another visit", digest, digests.get(value) ?? digest);
    digests.set(value, digest);
  };
  const walks = legal.map((from, index) =>
    walk(kinds, async (pool) => {
      await arrive(pool, from);
      for (const to of legal.slice(index + 1)) {
        await arrive(pool, to);
        await arrive(pool, from);
      }
    }),
  );
  return sum(await Promise.all(walks));
}

/** From each legal value to each illegal one and back: nothing happens to the machines. */
export async function walkIllegal({ legal, illegal, passesMax }: Property, kinds: readonly Kind[]): Promise<Walked> {
  const walks = legal.map((from) =>
    walk(kinds, async (pool) => {
      await step(pool, { values: [from], passesMax });
      const before = versionsOf(pool.world);
      const digest = digestOf(pool.world);
      for (const value of illegal) {
        await stepIllegal(pool, [from], value);
        expectSame("the machines of the illegal pool", versionsOf(pool.world), before);
        await step(pool, { values: [from], passesMax });
        expectSame("the machines of the repaired pool", versionsOf(pool.world), before);
        expectSame("the state of the repaired pool", digestOf(pool.world), digest);
      }
    }),
  );
  return sum(await Promise.all(walks));
}

function sum(walks: readonly Walked[]): Walked {
  return {
    failure: walks.find(({ failure }) => failure !== undefined)?.failure,
    steps: walks.reduce((total, { steps }) => total + steps, 0),
    passesMost: Math.max(...walks.map(({ passesMost }) => passesMost)),
  };
}

/** Specs in which every two values of two properties meet, one after the other and back again. */
export async function walkPairs(seed: number, kinds: readonly Kind[]): Promise<Walked & { readonly specs: number }> {
  const rows = coverPairs(PROPERTIES, createRandom(seed));
  const walked = await walk(kinds, async (pool) => {
    const digests = new Map<readonly Value[], string>();
    for (const row of [...rows, ...rows.toReversed()]) {
      await step(pool, { values: row, passesMax: ANYTHING });
      const known = digests.get(row);
      const digest = digestOf(pool.world);
      if (isFree(specOf(row))) {
        if (known !== undefined) expectSame("the state at the second visit", digest, known);
        digests.set(row, digest);
      }
    }
  });
  return { ...walked, specs: rows.length };
}

/** Of a change of several properties at once. */
export const ANYTHING = 14;

class WalkError extends Error {
  override readonly name = "WalkError";
}

async function walk(kinds: readonly Kind[], take: (walk: Walk) => Promise<void>): Promise<Walked> {
  const counted = { passes: 0 };
  const trace: string[] = [];
  const onPass = (_key: WakeUp, { decisions, failures }: PassResult) => {
    counted.passes += 1;
    const told = [...decisions, ...failures];
    if (told.length > 0) trace.push(`  a pass: ${told.join("; ")}`);
  };
  const world = createWorld({ seed: 1, kinds, onPass, onAnswer: () => undefined });
  world.setClocks();
  world.cluster.addNamespace(NAMESPACE);
  const body = {
    apiVersion: "pool.kubevirt.io/v1beta1",
    kind: "VirtualMachinePool",
    metadata: { name: POOL },
    spec: BASE,
  };
  world.cluster.answer({ method: "POST", path: POOL_PATH, body }, "user");
  const invariants = createJudge(world.cluster, (actor) => world.started.get(actor));
  const underWay = () => [...world.calls.filter(({ answer }) => answer === undefined), ...world.late];
  const pool: Walk = {
    world,
    judge: () => invariants.judge() ?? judgeClaims(world.cluster, underWay(), world.now()) ?? world.errors[0],
    trace,
    get passes() {
      return counted.passes;
    },
    passesMost: 0,
    steps: 0,
  };
  wake(world, "pool");
  try {
    await settle(pool);
    await take(pool);
  } catch (error) {
    if (!(error instanceof WalkError)) throw error;
    const story = [...pool.trace.slice(-STORY_STEPS_MAX), error.message].join("\n  ");
    return { failure: story, steps: pool.steps, passesMost: pool.passesMost };
  }
  return { failure: undefined, steps: pool.steps, passesMost: pool.passesMost };
}

const STORY_STEPS_MAX = 20;

function specOf(values: readonly Value[]): Json {
  return values.reduce((spec, value) => value.set(spec), BASE);
}

interface StepOptions {
  readonly values: readonly Value[];
  readonly passesMax: number;
}

/** The pool becomes this; the functions come to rest, and another wide look writes nothing. */
async function step(pool: Walk, { values, passesMax }: StepOptions): Promise<void> {
  const spec = specOf(values);
  const before = pool.passes;
  expectSame("the answer to a legal spec", write(pool, spec, values), 200);
  await settle(pool);
  const wrongs = () => mismatches(pool.world.cluster).filter((line) => !isMeant(line, spec, pool.world));
  // What only waits for a time to come is found by the schedule.
  for (let minute = 0; minute < MINUTES_MAX && wrongs().length > 0; minute += 1) {
    pool.world.advance(MINUTE_MS);
    pool.world.resync();
    await settle(pool);
  }
  const passes = pool.passes - before;
  pool.passesMost = Math.max(pool.passesMost, passes);
  if (passes > passesMax) throw new WalkError(`${passes} passes until all is at rest, not ${passesMax} at most`);
  if (wrongs().length > 0) throw new WalkError(`at rest ${wrongs().join("; ")}`);
  await expectStill(pool);
}

async function stepIllegal(pool: Walk, values: readonly Value[], illegal: IllegalValue): Promise<void> {
  const spec = specOf([...values, illegal]);
  const claim = claimText(pool.world);
  const status = write(pool, spec, [...values, illegal]);
  expectSame(`the answer to ${illegal.name}`, status === 200 ? "held" : "refused", illegal.fate);
  const object = poolOf(pool.world);
  const parsed = parsePool(object);
  const isIllegal = parsed !== undefined && !judge(parsed).legal;
  expectSame(`whether the pool is illegal with ${illegal.name}`, isIllegal, illegal.fate === "held");
  await settle(pool);
  if (illegal.fate === "held") expectSame("the claim of the illegal pool", claimText(pool.world), claim);
  await expectStill(pool);
}

function write(pool: Walk, spec: Json, values: readonly Value[]): number {
  pool.trace.push(values.map(({ name }) => name).join(" | "));
  const body = [{ op: "replace", path: "/spec", value: spec }];
  const path = `${POOL_PATH}/${POOL}`;
  pool.steps += 1;
  const contentType = "application/json-patch+json";
  const { status } = pool.world.cluster.answer({ method: "PATCH", path, body, contentType }, "user");
  if (status === 200) wake(pool.world, "pool");
  return status;
}

/** One more wide look at a pool at rest. */
async function expectStill(pool: Walk): Promise<void> {
  const { journal } = pool.world.cluster.store;
  const before = journal.length;
  pool.world.intrude(PLACE, "sweep");
  await settle(pool);
  const [written] = journal.slice(before);
  if (written === undefined) return;
  const { name } = (written.after ?? written.before)?.metadata ?? { name: "" };
  throw new WalkError(`${written.actor} writes ${written.kind.kind} ${name} though everything is at rest`);
}

/** Until nobody has anything to do or to wait for. Whatever changes is told to the functions as it would be by the API server. */
async function settle(pool: Walk): Promise<void> {
  const { world } = pool;
  const { store } = world.cluster;
  let told = store.journal.length;
  for (let turns = 0; turns < TURNS_MAX; turns += 1) {
    await world.settle();
    const wrong = pool.judge();
    if (wrong !== undefined) throw new WalkError(wrong);
    const [call] = world.calls;
    if (call !== undefined) {
      world.answer(call);
      continue;
    }
    collectGarbage(world.cluster);
    const [kubevirt] = kubevirtSteps(world.cluster);
    kubevirt?.take();
    const changed = store.journal.slice(told).filter(({ actor }) => !world.started.has(actor));
    told = store.journal.length;
    for (const cause of new Set(changed.map(({ kind }) => CAUSES[kind.plural])))
      if (cause !== undefined) wake(world, cause);
    const [fact] = world.facts.splice(0, 1);
    if (fact !== undefined) world.report(fact);
    const isDelivered = world.deliver("passes", 1) || world.deliver("late", 1);
    if (kubevirt !== undefined || fact !== undefined || isDelivered || world.invocations.size > 0) {
      const sleeping = world.wakesAt();
      if (sleeping !== undefined && world.calls.length === 0) world.advance(Math.max(1, sleeping - world.now()));
      continue;
    }
    const due = [world.queues.passes.nextAt(), world.queues.late.nextAt(), world.wakesAt()];
    const next = due.filter((time) => time !== undefined);
    if (next.length === 0) return;
    world.advance(Math.max(1, Math.min(...next) - world.now()));
  }
  throw new WalkError("the functions do not come to rest");
}

/** The functions are told of a change of that kind. */
function wake({ queues, now }: World, cause: string): void {
  const wakeUp: WakeUp = { version: 1, cluster: "local", ...PLACE, cause, attempt: 0 };
  queues.passes.send({ wakeUp, seenAtMs: now() }, now());
}

const CAUSES: Readonly<Record<string, string>> = {
  virtualmachinepools: "pool",
  virtualmachines: "vm",
  virtualmachineinstances: "instance",
};

/** What the strategies of the spec leave to others, and what the judge of the end reads otherwise. */
function isMeant(line: string, spec: Json, world: World): boolean {
  const { replicas = 1 } = spec;
  const owned = machinesOf(world).length;
  const isSurplus = typeof replicas === "number" && owned > replicas && !scalesIn(spec);
  if (isSurplus && line.includes("number of machines")) return true;
  const isLeft = !updates(spec) || !runs(spec);
  if (isLeft && /other disks|another template|older edit|another revision|rolled out/.test(line)) return true;
  return line.includes("status.labelSelector") && canonicalJson(spec["selector"]) !== canonicalJson(BASE["selector"]);
}

function selectorsOf(spec: Json, field: string): Json {
  return recordAt(recordAt(recordAt(recordAt(spec, field), "proactive"), "selectionPolicy"), "selectors");
}

function scalesIn(spec: Json): boolean {
  const strategy = recordAt(spec, "scaleInStrategy");
  const isOthers = isRecord(strategy["unmanaged"]) || isRecord(strategy["opportunistic"]);
  return !isOthers && Object.keys(selectorsOf(spec, "scaleInStrategy")).length === 0;
}

function updates(spec: Json): boolean {
  const strategy = recordAt(spec, "updateStrategy");
  return !isRecord(strategy["unmanaged"]) && Object.keys(selectorsOf(spec, "updateStrategy")).length === 0;
}

/** Where machines are made that do not run, those that do may not all go: whoever is unavailable counts, for whatever reason. */
function runs(spec: Json): boolean {
  const { running, runStrategy } = recordAt(recordAt(spec, TEMPLATE), "spec");
  return running === true || runStrategy === "Always" || runStrategy === "RerunOnFailure";
}

/** Whether the spec alone says how its pool ends. */
function isFree(spec: Json): boolean {
  const isProactive = !isRecord(recordAt(spec, "updateStrategy")["opportunistic"]);
  return scalesIn(spec) && updates(spec) && runs(spec) && isProactive && spec["paused"] !== true;
}

function poolOf(world: World): KubeObject | undefined {
  return objects(world.cluster, "virtualmachinepools")[0];
}

function machinesOf(world: World): readonly KubeObject[] {
  return objects(world.cluster, "virtualmachines");
}

function claimText(world: World): string | undefined {
  return poolOf(world)?.metadata.annotations?.[CLAIM_ANNOTATION];
}

const MARKS = [
  CLAIM_ANNOTATION,
  HEALING_ANNOTATION,
  REVOKED_ANNOTATION,
  GUARDED_ANNOTATION,
  UPDATED_ANNOTATION,
] as const;

/** What the pool is to whoever looks at it: no names of revisions, no times, no UIDs, and every machine as if it had no number. */
function digestOf(world: World): string {
  const part = (object: KubeObject) => {
    const { labels = {}, annotations = {}, name } = object.metadata;
    const { [REVISION_LABEL]: _revision, ...ownLabels } = labels;
    const kept = Object.entries(annotations).filter(([key]) => !MARKS.some((mark) => mark === key));
    const ordinal = /-\d+$/.exec(name)?.[0] ?? "";
    const text = canonicalJson({ labels: ownLabels, annotations: Object.fromEntries(kept), spec: object["spec"] });
    return (
      text
        .replaceAll(`${ordinal}"`, '-N"')
        .replaceAll(new RegExp(`"${REVISION_LABEL}":"[^"]*",?`, "g"), "")
        .replaceAll(",}", "}")
        // None is as good as an empty list.
        .replaceAll('"dataVolumeTemplates":[],', "")
    );
  };
  const { conditions = [], readyReplicas, ...status } = recordAt(poolOf(world) ?? {}, "status");
  const shown = Array.isArray(conditions) ? conditions.map((entry) => (isRecord(entry) ? entry["reason"] : entry)) : [];
  const guests = objects(world.cluster, "virtualmachineinstances").map(part).sort();
  // Whether it runs is up to each machine's user.
  const isTheirs = machinesOf(world).some((vm) => runStrategyOf(vm) === "Manual");
  const machines = machinesOf(world).map(part).sort();
  return JSON.stringify({ status, shown, machines, ...(isTheirs ? {} : { readyReplicas, guests }) }, undefined, 1);
}

interface Identities {
  readonly machines: readonly string[];
  readonly guests: readonly string[];
}

function identitiesOf(world: World): Identities {
  const of = (plural: string) =>
    objects(world.cluster, plural)
      .filter((object) => !isTerminating(object) && ownersOf(object).length > 0)
      .map(({ metadata }) => `${metadata.name} ${metadata.uid}`);
  return { machines: of("virtualmachines"), guests: of("virtualmachineinstances") };
}

function expectUntouched(before: Identities, after: Identities, costs: Property["costs"]): void {
  if (costs !== "machines") expectSame("the machines", after.machines.join(), before.machines.join());
  if (costs === "nothing") expectSame("the guests", after.guests.join(), before.guests.join());
}

/** Of all machines and instances: equal when nobody has written to any of them. */
function versionsOf(world: World): string {
  const all = [...machinesOf(world), ...objects(world.cluster, "virtualmachineinstances")];
  return all.map(({ kind, metadata }) => `${kind} ${metadata.name} ${metadata.uid} ${metadata.resourceVersion}`).join();
}

function expectSame(what: string, is: unknown, should: unknown): void {
  if (is === should) return;
  throw new WalkError(`${what} is ${String(is)}, not ${String(should)}`);
}

/** Rows with one legal value of each property, such that every two values of two properties are together in one. */
export function coverPairs(properties: readonly Property[], random: Random): readonly (readonly Value[])[] {
  const missing = new Set(allPairs(properties));
  const rows: (readonly Value[])[] = [];
  for (let [pair] = missing; pair !== undefined; [pair] = missing) {
    const [p = 0, a = 0, q = 0, b = 0] = pair.split(/[. ]/).map(Number);
    const row = new Map([
      [p, a],
      [q, b],
    ]);
    const gain = (at: number, value: number) =>
      [...row].filter(([other, chosen]) => missing.has(pairName([at, value], [other, chosen]))).length;
    // In another order each time, or the last would always get what is left.
    for (const index of shuffled([...properties.keys()], random)) {
      const values = [...(properties[index]?.legal.keys() ?? [])];
      const best = Math.max(...values.map((value) => gain(index, value)));
      if (!row.has(index)) row.set(index, random.pick(values.filter((value) => gain(index, value) === best)) ?? 0);
    }
    for (const one of row) for (const other of row) missing.delete(pairName(one, other));
    rows.push(properties.flatMap(({ legal }, index) => legal[row.get(index) ?? 0] ?? []));
  }
  return rows;
}

/** Index of a property and of a value of it. */
type Place = readonly [property: number, value: number];

function pairName(one: Place, other: Place): string {
  const [first, second] = one[0] < other[0] ? [one, other] : [other, one];
  return `${first.join(".")} ${second.join(".")}`;
}

/** Every two values of two properties. */
export function allPairs(properties: readonly Property[]): readonly string[] {
  const places = properties.flatMap(({ legal }, index) => legal.map((_, value): Place => [index, value]));
  return places.flatMap((one, index) =>
    places.slice(index + 1).flatMap((other) => (one[0] === other[0] ? [] : pairName(one, other))),
  );
}

function shuffled<T>(list: readonly T[], random: Random): readonly T[] {
  return list
    .map((entry) => ({ entry, key: random.int(2 ** 30) }))
    .sort((a, b) => a.key - b.key)
    .map(({ entry }) => entry);
}
