/** What is read for the sake of disks that outlive their machine, and what is not. */
import { describe, expect, it } from "vitest";
import { planDiskCare, unfitDisks } from "../../shared/planning/disks.ts";
import { parseDisk, poolSpecSchema } from "../../shared/planning/model.ts";
import { anObservation, anOwner, aPoolWith, aSpec, aVm, aVmSpec, type Json } from "../support/builders.ts";
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

/** What becomes of a disk of `made` that was kept, when the pool's template asks for `wanted`. */
function isFit(made: Json, wanted: Json): boolean {
  const vm = aVm(0, {
    spec: aVmSpec("web-1", { dataVolumeTemplates: [aTemplate("disk-0", made)] }),
    terminating: true,
  });
  const metadata = { name: "disk-0", namespace: "default", uid: "disk-uid", resourceVersion: "1" };
  const owned = parseDisk({ metadata: { ...metadata, ownerReferences: [anOwner(vm.uid)] } }, "dataVolume");
  const seen = anObservation({ pool, vms: [vm], disks: new Map([[vm.uid, owned === undefined ? [] : [owned]]]) });
  const [action] = planDiskCare({ seen, leaving: [vm], live: [] }).actions;
  if (action?.kind !== "changeDisk") throw new Error("the disk is not kept");
  const kept = parseDisk({ metadata: { ...metadata, ...action.metadata } }, "dataVolume");
  const spec = poolSpecSchema.parse(
    aSpec({ virtualMachineTemplate: { spec: aVmSpec(null, { dataVolumeTemplates: [aTemplate("disk", wanted)] }) } }),
  );
  return unfitDisks(pool, spec, kept === undefined ? [] : [kept]).length === 0;
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
  ])("$it", ({ made, wanted, fits }) => expect(isFit(made, wanted)).toBe(fits));
});
