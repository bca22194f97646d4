import { expect, it } from "vitest";
import { describeAlteration } from "../../shared/planning/alteration.ts";
import { REVISION_LABEL } from "../../shared/planning/names.ts";
import { judge } from "../../shared/planning/verdict.ts";
import { aPool, aSpec, type Json, LABELS } from "../support/builders.ts";

const POOL = aPool({
  spec: aSpec({
    selector: {
      matchLabels: LABELS,
      matchExpressions: [
        { key: "tier", operator: "In", values: ["front"] },
        { key: "quarantine", operator: "DoesNotExist" },
      ],
    },
    virtualMachineTemplate: { metadata: { labels: { ...LABELS, tier: "front" } }, spec: { template: {} } },
  }),
});
const MADE = { ...LABELS, tier: "front", [REVISION_LABEL]: "web-1" };
const OWNER = {
  apiVersion: "pool.kubevirt.io/v1beta1",
  kind: "VirtualMachinePool",
  name: POOL.name,
  uid: POOL.uid,
  controller: true,
};

/** What is said of a machine that the cluster has made with this metadata. */
function alterationOf(metadata: Json | undefined) {
  const verdict = judge(POOL);
  if (!verdict.legal) throw new TypeError("the test's own pool is not legal");
  return describeAlteration(POOL, verdict, { metadata });
}

const made = (metadata: Json = {}) => ({ name: "web-0", labels: MADE, ownerReferences: [OWNER], ...metadata });

it.each<[string, Json]>([
  ["is as it was sent", made()],
  [
    "has labels and owners of others, too",
    made({
      labels: { ...MADE, zone: "a" },
      ownerReferences: [OWNER, { ...OWNER, kind: "Tenant", uid: "t", controller: false }],
    }),
  ],
  ["has lost the name of its revision", made({ labels: { ...LABELS, tier: "front" } })],
])("says nothing of a machine that %s", (_what, metadata) => {
  expect(alterationOf(metadata)).toBeUndefined();
});

it.each<[string, Json | undefined]>([
  ["no metadata", undefined],
  ["no name", { labels: {}, ownerReferences: [] }],
  ["a name that is none", made({ name: 7 })],
])("says nothing of an answer that is no machine, as it has %s", (_what, metadata) => {
  expect(alterationOf(metadata)).toBeUndefined();
});

it.each<[string, Json, string]>([
  ["no labels", made({ labels: undefined }), 'label "app", label "tier"'],
  ["null for labels", made({ labels: null }), 'label "app", label "tier"'],
  ["another value for one", made({ labels: { ...MADE, app: "db", zone: "a" } }), 'label "app"'],
  ["one that the selector does not allow", made({ labels: { ...MADE, quarantine: "" } }), 'label "quarantine"'],
  ["no owners", made({ ownerReferences: undefined }), "owner references"],
  ["null for owners", made({ ownerReferences: null }), "owner references"],
  [
    "the pool as an owner that does not control",
    made({ ownerReferences: [{ ...OWNER, controller: false }] }),
    "owner references",
  ],
  [
    "an earlier pool of the name as its owner",
    made({ ownerReferences: [{ ...OWNER, uid: "other" }] }),
    "owner references",
  ],
  ["neither", { name: "web-0" }, 'owner references, label "app", label "tier"'],
])("says what the cluster has changed in a machine that has %s, and what to do", (_what, metadata, what) => {
  expect(alterationOf(metadata)).toBe(
    `an admission policy or webhook of the cluster changes what the pool knows new machines by (${what}): no more are made until it leaves that as it is`,
  );
});
