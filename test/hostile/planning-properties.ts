/** Rules of the planner, its schemas and its parsers. */
import assert from "node:assert/strict";
import * as fc from "fast-check";
import { formatClaim, parseClaim } from "../../shared/planning/claim.ts";
import { parseDuration } from "../../shared/planning/duration.ts";
import { describeProblems } from "../../shared/planning/errors.ts";
import { fnv1a } from "../../shared/planning/hash.ts";
import { canonicalJson, parseJson, recordOf } from "../../shared/planning/json.ts";
import { parseInstance, parsePool, parseRevision, parseVm } from "../../shared/planning/model.ts";
import { HEALING_ANNOTATION, POOL_FINALIZER, vmName } from "../../shared/planning/names.ts";
import { planPass } from "../../shared/planning/plan.ts";
import { canonicalQuantity } from "../../shared/planning/quantity.ts";
import { judgeReview } from "../../shared/planning/review.ts";
import { buildRevision, chooseRevision } from "../../shared/planning/revisions.ts";
import { resyncCause } from "../../shared/planning/schedule.ts";
import { labelSelectorSchema, parseNodeRequirements, parseSelector } from "../../shared/planning/selector.ts";
import { reportStatus } from "../../shared/planning/status.ts";
import { buildVm } from "../../shared/planning/template.ts";
import { templateHash } from "../../shared/planning/template-change.ts";
import { judge } from "../../shared/planning/verdict.ts";
import { ACTING } from "../planning/plans.ts";
import { aClaim, anObservation, aPool, aRevision, aRollout, aSpec, LABELS, NOW, someVms } from "../support/builders.ts";
import {
  CANARY,
  damaged,
  hostileJson,
  hostileText,
  mistyped,
  SECRET_SCRIPT,
  textOf,
  withSecret,
} from "./arbitraries.ts";
import { type Property, property } from "./property.ts";

/** A pool's spec with something of everything. */
export const FULL_SPEC = aSpec({
  paused: false,
  maxUnavailable: "25%",
  selector: { matchLabels: LABELS, matchExpressions: [{ key: "app", operator: "In", values: ["web"] }] },
  nameGeneration: { appendIndexToConfigMapRefs: true, appendIndexToSecretRefs: true },
  autohealing: { startUpFailureThreshold: 3, minFailingToStartDuration: "5m" },
  scaleInStrategy: {
    proactive: {
      selectionPolicy: { sortPolicy: "Newest", selectors: { labelSelector: {} } },
      statePreservation: "Offline",
    },
  },
  updateStrategy: {
    proactive: {
      selectionPolicy: { selectors: { nodeSelectorRequirementMatcher: [{ key: "a", operator: "Exists" }] } },
    },
  },
  virtualMachineTemplate: {
    metadata: { labels: LABELS, annotations: { note: "x" } },
    spec: {
      runStrategy: "Always",
      dataVolumeTemplates: [
        { metadata: { name: "data" }, spec: { storage: { resources: { requests: { storage: "1Gi" } } } } },
      ],
      template: {
        metadata: { labels: LABELS },
        spec: {
          domain: { memory: { guest: "1Gi" }, devices: {} },
          volumes: [
            { name: "data", dataVolume: { name: "data" } },
            { name: "seed", cloudInitNoCloud: { userData: SECRET_SCRIPT } },
          ],
        },
      },
    },
  },
});

const METADATA = { name: "web", namespace: "default", uid: "u", resourceVersion: "1", generation: 1 };
/** Longer ones would not fit a fact beside the rest. */
const PROBLEMS_LENGTH_MAX = 20_000;
const FEW: readonly string[] = ["createVm", "deleteVm", "restartInstance", "updateVm"];
const CLAIM = aClaim({
  create: new Map([[7, NOW - 10_000]]),
  delete: [{ ordinal: 1, uidPrefix: "beef0001" }],
  restart: [{ ordinal: 0, uidPrefix: "cafe0000" }],
  rollout: aRollout(aSpec(), "web-1"),
});
const HEALING = {
  "1": { count: 2, at: "2026-11-22T09:59:00Z" },
  "2": { count: 1, at: "2026-11-22T09:00:00Z", stuck: true },
};

function judgedSpec(spec: unknown): void {
  const verdict = judge({ name: "web", spec });
  if (!verdict.legal) {
    const text = describeProblems(verdict.problems);
    assert(verdict.problems.length > 0 && text.length < PROBLEMS_LENGTH_MAX && text.isWellFormed(), text.slice(0, 500));
    return;
  }
  assert.equal(templateHash(verdict.spec).length, 16);
  const pool = parsePool({ metadata: METADATA, spec });
  assert(pool !== undefined);
  const vm = buildVm({
    pool,
    spec: verdict.spec,
    poolApiVersion: "pool.kubevirt.io/v1beta1",
    ordinal: 0,
    revision: "web-1",
  });
  assert(JSON.stringify([vm, buildRevision(pool, "v", "web-1")]).length > 0);
  const written = recordOf(recordOf(recordOf(spec)["selector"])["matchLabels"]);
  assert(
    Object.keys(written).every((key) => verdict.selector.text.includes(key)),
    "a label that is asked for is lost",
  );
}

/** Of a pool that has all that it wants, whatever its annotations say: no machine comes, goes or changes. */
function annotatedPool([claim, healing]: readonly [string, string]): void {
  const pool = aPool({ spec: aSpec({ autohealing: {} }), claim, annotations: { [HEALING_ANNOTATION]: healing } });
  const seen = anObservation({ pool, vms: someVms(3), instances: [], ownRevisions: [], revision: aRevision() });
  const { actions } = planPass(seen, ACTING);
  assert.deepEqual(
    actions.filter(({ kind }) => FEW.includes(kind)),
    [],
  );
  const parsed = parseClaim(claim);
  if (parsed !== undefined) assert.deepEqual(parseClaim(formatClaim(parsed)), parsed);
}

const settledText = fc.oneof(
  hostileText,
  damaged(parseJson(formatClaim(CLAIM))).map(textOf),
  fc.oneof(damaged(HEALING), mistyped(HEALING)).map(textOf),
);

function heldPool(spec: unknown): void {
  const pool = parsePool({ metadata: { ...METADATA, finalizers: [POOL_FINALIZER] }, spec });
  assert(pool !== undefined);
  const seen = anObservation({ pool, vms: someVms(5) });
  const { actions } = planPass(seen, ACTING);
  if (!seen.verdict.legal) assert.deepEqual(actions, []);
  resyncCause(pool, NOW, { settledMinutes: 10, everything: false });
}

/** What a status says is said again by the next pass, which then has nothing to write. */
function statusOf([status, message]: readonly [unknown, string]): void {
  const pool = parsePool({ metadata: METADATA, spec: aSpec(), status });
  assert(pool !== undefined);
  const input = {
    now: NOW,
    verdict: judge(pool),
    members: someVms(3),
    failures: [{ during: "scaleOut", message }],
    by: "test",
  } as const;
  const first = reportStatus({ ...input, pool });
  const stored = parsePool({ metadata: METADATA, spec: aSpec(), status: parseJson(JSON.stringify(first.status)) });
  assert(stored !== undefined);
  assert.equal(reportStatus({ ...input, pool: stored, now: NOW + 60_000 }).changed, false);
}

function objects(object: unknown): void {
  for (const vm of [parseVm(object, "web")]) if (vm !== undefined) anObservation({ vms: [vm] });
  parseInstance(object);
  const revision = parseRevision(object);
  const known = new Map([["web-1", revision ?? ("absent" as const)]]);
  const verdict = judge(aPool());
  if (verdict.legal) chooseRevision(aPool(), verdict.spec, { known, preferred: ["web-1"] });
}

function texts(text: string): void {
  const quantity = canonicalQuantity(text);
  assert(quantity === undefined || quantity.length <= text.length + 40);
  const duration = parseDuration(text);
  assert(duration === undefined || Number.isFinite(duration));
  assert.equal(fnv1a(text).length, 16);
  assert.equal(vmName(text, 0).length, text.length + 2);
  assert.equal(canonicalJson(text), JSON.stringify(text));
}

function selectors(value: unknown): void {
  const read = labelSelectorSchema.safeParse(value).data;
  if (read === undefined) return;
  const { parsed, problems } = parseSelector(read, "spec.selector");
  assert(describeProblems(problems.slice(0, 20)).length < PROBLEMS_LENGTH_MAX);
  // Of a legal one no sign can end a requirement early, in the address that it becomes part of.
  if (problems.length === 0) assert.match(parsed.text, /^[\w./=!,() -]*$/);
  parsed.matches(LABELS);
  parseNodeRequirements(read.matchExpressions ?? [], "field").parsed.matches(LABELS);
}

const storedSpec = fc.oneof(
  damaged(FULL_SPEC),
  damaged(FULL_SPEC["selector"]).map((selector) => ({ ...FULL_SPEC, selector })),
  mistyped(FULL_SPEC),
  hostileJson,
);
const STATUS = {
  replicas: 3,
  readyReplicas: 3,
  labelSelector: "app=web",
  conditions: [
    {
      type: "ReplicaFailure",
      status: "True",
      lastTransitionTime: "2026-11-22T09:00:00Z",
      reason: "FailedScaleOut",
      message: "x",
    },
  ],
};
const VM = {
  metadata: { ...METADATA, labels: LABELS, ownerReferences: [], finalizers: [] },
  spec: { template: {} },
  status: { conditions: [] },
  data: FULL_SPEC,
};

export const PLANNING: readonly Property[] = [
  property("a spec is legal and can be built, or its problems are told briefly", {
    weight: 3,
    input: storedSpec,
    holds: judgedSpec,
  }),
  property("an illegal pool is held", { weight: 3, input: storedSpec, holds: heldPool }),
  property("a secret in the wrong field is not repeated", {
    weight: 2,
    input: withSecret(FULL_SPEC),
    holds: (spec) => assert(!JSON.stringify(judgeReview({ metadata: METADATA, spec }, undefined)).includes(CANARY)),
  }),
  property("a review ends in a verdict of bounded length", {
    weight: 2,
    input: fc.tuple(
      damaged({ metadata: METADATA, spec: FULL_SPEC }),
      fc.oneof(fc.constant(undefined), damaged({ metadata: METADATA, spec: FULL_SPEC, status: STATUS })),
    ),
    holds: ([object, old]) => assert(JSON.stringify(judgeReview(object, old)).length < 3 * PROBLEMS_LENGTH_MAX),
  }),
  property("annotations of a settled pool move no machine", {
    weight: 3,
    input: fc.tuple(settledText, settledText),
    holds: annotatedPool,
  }),
  property("a status that was written stays", {
    weight: 2,
    input: fc.tuple(fc.oneof(damaged(STATUS), hostileJson), hostileText),
    holds: statusOf,
  }),
  property("machines, instances and revisions are read or refused", {
    weight: 3,
    input: fc.oneof(damaged(VM), hostileJson),
    holds: objects,
  }),
  property("quantities, durations and names are read or refused", { weight: 5, input: hostileText, holds: texts }),
  property("selectors are read or refused", {
    weight: 3,
    input: fc.oneof(damaged(FULL_SPEC["selector"]), hostileJson),
    holds: selectors,
  }),
];
