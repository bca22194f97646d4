/** What is read for the sake of disks that outlive their machine, and what is not. */
import { describe, expect, it } from "vitest";
import { planDiskCare, unfitDisks } from "../../shared/planning/disks.ts";
import { parseDisk, poolSpecSchema } from "../../shared/planning/model.ts";
import {
  anObservation,
  anOwner,
  aPool,
  aPoolWith,
  aSpec,
  aVm,
  aVmSpec,
  type Json,
  LABELS,
} from "../support/builders.ts";
import { namesOf, planOf } from "./plans.ts";

const pool = aPoolWith({ replicas: 1, scaleInStrategy: { proactive: { statePreservation: "Offline" } } });
const spec = aVmSpec("web-1", { dataVolumeTemplates: [{ metadata: { name: "disk-0" }, spec: {} }] });

describe("where the namespace may not be read", () => {
  const blind = { pool, namespaceUid: "" };

  it("no disk of a living machine is read: none can be guarded", () => {
    expect(planOf({ ...blind, vms: [aVm(0, { spec })] })).toMatchObject({ needs: [], actions: [] });
  });

  it("a deleted machine's disks are read and released", () => {
    const vm = aVm(0, { spec, terminating: true });
    expect(planOf({ ...blind, vms: [vm] }).needs).toMatchObject([{ read: "disks", vms: [{ name: "web-0" }] }]);
    expect(namesOf(planOf({ ...blind, vms: [vm], disks: new Map([[vm.uid, []]]) }), "dropVmFinalizer")).toEqual([
      "web-0",
    ]);
  });
});

it("the namespace is asked for before the disks are", () => {
  expect(planOf({ pool, vms: [aVm(0, { spec })] }).needs).toEqual([{ read: "namespace" }]);
});

/** What becomes of a disk of `made` that was kept when the pool's template asked for `asked`, and now for `wanted`. */
function isFit({ made, asked, wanted }: { made: Json; asked: Json; wanted: Json }): boolean {
  const poolSpec = (disk: Json) => ({
    ...aSpec({ scaleInStrategy: { proactive: { statePreservation: "Offline" } } }),
    virtualMachineTemplate: {
      metadata: { labels: LABELS },
      spec: aVmSpec(null, { dataVolumeTemplates: [aTemplate("disk", disk)] }),
    },
  });
  const vm = aVm(0, {
    spec: aVmSpec("web-1", { dataVolumeTemplates: [aTemplate("disk-0", made)] }),
    terminating: true,
  });
  const metadata = { name: "disk-0", namespace: "default", uid: "disk-uid", resourceVersion: "1" };
  const owned = parseDisk({ metadata: { ...metadata, ownerReferences: [anOwner(vm.uid)] } }, "dataVolume");
  const disks = new Map([[vm.uid, owned === undefined ? [] : [owned]]]);
  const seen = anObservation({ pool: aPool({ spec: poolSpec(asked) }), vms: [vm], disks });
  const [action] = planDiskCare({ seen, leaving: [vm], live: [], released: [] }).actions;
  if (action?.kind !== "changeDisk") throw new Error("the disk is not kept");
  const kept = parseDisk({ metadata: { ...metadata, ...action.metadata } }, "dataVolume");
  return unfitDisks(pool, poolSpecSchema.parse(poolSpec(wanted)), kept === undefined ? [] : [kept]).length === 0;
}

function aTemplate(name: string, storage: Json): Json {
  return { metadata: { name }, spec: { source: { blank: {} }, storage } };
}

describe("a kept disk", () => {
  const size = (storage: string) => ({ resources: { requests: { storage } } });

  it.each([
    { it: "fits the template that made it", made: size("1Gi"), wanted: size("1Gi"), fits: true },
    { it: "fits whatever the quantity is written like", made: size("1Gi"), wanted: size("1024Mi"), fits: true },
    { it: "does not fit another size", made: size("1Gi"), wanted: size("2Gi"), fits: false },
    {
      it: "fits a template without a storage class, which KubeVirt fills in by the machine's preference",
      made: { ...size("1Gi"), storageClassName: "fast" },
      asked: size("1Gi"),
      wanted: size("1Gi"),
      fits: true,
    },
    {
      it: "does not fit another storage class",
      made: { ...size("1Gi"), storageClassName: "fast" },
      wanted: { ...size("1Gi"), storageClassName: "slow" },
      fits: false,
    },
    {
      it: "does not fit a storage class where it had none",
      made: size("1Gi"),
      wanted: { ...size("1Gi"), storageClassName: "slow" },
      fits: false,
    },
  ])("$it", ({ made, asked = made, wanted, fits }) => expect(isFit({ made, asked, wanted })).toBe(fits));
});
