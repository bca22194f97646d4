import { describe, expect, it } from "vitest";
import { parseDisk, parseInstance, parsePool, parseRevision, parseVm } from "../../shared/planning/model.ts";
import { anOwner, aSpec, type Json, POOL_UID } from "../support/builders.ts";

const metadata: Json = { name: "web-0", namespace: "default", uid: "u", resourceVersion: "1" };
const LEAVING: Json = { ...metadata, deletionTimestamp: "2026-11-22T09:59:00Z" };
const BAD: Json = { ...metadata, uid: undefined };
const aMachine = { apiVersion: "kubevirt.io/v1", kind: "VirtualMachine", name: "web-0" };
/** A field of it is lost to readers that copy field by field. */
const LOST: unknown = JSON.parse('{"deep": {"__proto__": {}}}');
const ready = (status: string, time?: string) => ({ type: "Ready", status, lastTransitionTime: time });

describe("what the API has", () => {
  it("is nothing where its metadata are not what it promises", () => {
    const read = [
      parsePool({ metadata: { ...BAD, generation: 1 } }),
      parseVm({ metadata: BAD }, "web"),
      parseInstance({ metadata: BAD }),
      parseRevision({ metadata: BAD }),
      parseDisk({ metadata: BAD }, "claim"),
    ];
    expect(read).toEqual([undefined, undefined, undefined, undefined, undefined]);
  });

  it("is on its way out when it has a time of deletion", () => {
    const read = (object: Json) => [
      parsePool({ metadata: { ...object, generation: 1 } })?.deleting,
      parseVm({ metadata: object }, "web")?.terminating,
      parseInstance({ metadata: object })?.terminating,
      parseDisk({ metadata: object }, "claim")?.terminating,
    ];
    expect(read(metadata)).toEqual([false, false, false, false]);
    expect(read(LEAVING)).toEqual([true, true, true, true]);
  });

  it("has its labels, annotations and owners, and none where it has none", () => {
    const owner = anOwner("x");
    const full = { ...metadata, labels: { a: "1" }, annotations: { b: "2" }, ownerReferences: [owner] };
    for (const parse of [
      (object: unknown) => parseVm(object, "web"),
      (object: unknown) => parseDisk(object, "claim"),
    ]) {
      expect(parse({ metadata: full })).toMatchObject({
        labels: { a: "1" },
        annotations: { b: "2" },
        owners: [owner],
      });
      expect(parse({ metadata })).toMatchObject({ labels: {}, annotations: {}, owners: [] });
    }
    expect(parseInstance({ metadata: full })?.labels).toEqual({ a: "1" });
    expect(parseInstance({ metadata })?.labels).toEqual({});
  });

  it("has no spec where readers would lose a part of it", () => {
    const template = { metadata: {}, spec: LOST };
    expect(parseVm({ metadata, spec: { template } }, "web")).toMatchObject({ name: "web-0", spec: undefined });
    expect(parseInstance({ metadata, spec: LOST })).toMatchObject({ name: "web-0", spec: undefined });
    const data = aSpec({ virtualMachineTemplate: { spec: { template } } });
    expect(parseRevision({ metadata, data })).toMatchObject({ name: "web-0", spec: undefined });
  });
});

describe("a machine", () => {
  const machineOf = (status: unknown) => parseVm({ metadata, status }, "web");

  it.each<[unknown, boolean]>([
    [undefined, false],
    [{ created: null }, false],
    [{ created: "yes" }, false],
    [{ created: false }, false],
    [{ created: true }, true],
  ])("with the status %j has an instance: %s", (status, running) => expect(machineOf(status)?.running).toBe(running));

  it("is ready, or not, since its condition of that name changed", () => {
    const other = { type: "LiveMigratable", status: "True", lastTransitionTime: "2026-11-22T08:00:00Z" };
    const since = Date.UTC(2026, 10, 22, 9);
    const at = new Date(since).toISOString();
    const not = { ...other, status: "False" };
    const times = [
      machineOf({ conditions: [other, not, ready("True", at)] }),
      machineOf({ conditions: [other, not, ready("False", at)] }),
      machineOf({ conditions: [other, not, ready("Unknown", at)] }),
      machineOf({ conditions: [ready("True")] }),
      machineOf({ conditions: [ready("True", "some day")] }),
      machineOf(undefined),
    ].map((vm) => [vm?.readySince, vm?.notReadySince]);
    const never = [undefined, undefined];
    expect(times).toEqual([[since, undefined], [undefined, since], never, never, never, never]);
  });
});

describe("an instance", () => {
  const instanceOf = (status: unknown) => parseInstance({ metadata, status });

  it.each<[string, unknown, { readonly ready: boolean; readonly final: boolean }]>([
    ["runs and is ready", { phase: "Running", conditions: [ready("True")] }, { ready: true, final: false }],
    ["runs and is not ready", { phase: "Running", conditions: [ready("False")] }, { ready: false, final: false }],
    ["runs, and nothing is said of it", { phase: "Running" }, { ready: false, final: false }],
    ["was ready and is over", { phase: "Succeeded", conditions: [ready("True")] }, { ready: false, final: true }],
    ["has failed", { phase: "Failed" }, { ready: false, final: true }],
    ["is new", {}, { ready: false, final: false }],
    ["has no status", undefined, { ready: false, final: false }],
    ["has an empty status", null, { ready: false, final: false }],
  ])("that %s", (_what, status, judged) => expect(instanceOf(status)).toMatchObject(judged));

  it.each<[string, readonly Json[] | undefined, string | undefined]>([
    ["the machine that controls it", [anOwner("vm-uid", aMachine)], "vm-uid"],
    ["no machine where something else controls it", [anOwner("set-uid", { kind: "ReplicaSet" })], undefined],
    ["no machine where one only owns it", [anOwner("vm-uid", { ...aMachine, controller: false })], undefined],
    ["no machine where nothing owns it", undefined, undefined],
  ])("is of %s", (_what, ownerReferences, uid) => {
    expect(parseInstance({ metadata: { ...metadata, ownerReferences } })).toMatchObject({ vmUid: uid });
  });
});

describe("a revision", () => {
  it("is of the pool that controls it, if any does", () => {
    const ownerOf = (ownerReferences?: readonly Json[]) =>
      parseRevision({ metadata: { ...metadata, ownerReferences } });
    expect(ownerOf([anOwner(POOL_UID)])).toMatchObject({ ownerUid: POOL_UID });
    expect(ownerOf([anOwner(POOL_UID, { controller: null })])).toMatchObject({ ownerUid: undefined });
    expect(ownerOf()).toMatchObject({ ownerUid: undefined });
  });
});
