/** What is read for the sake of disks that outlive their machine, and what is not. */
import { describe, expect, it } from "vitest";
import { aPoolWith, aVm, aVmSpec } from "../support/builders.ts";
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
