import { describe, expect, it } from "vitest";
import { type Change, type ChangedKind, changedKind, hintsFor, isOwnWrite } from "../../shared/events/changes.ts";
import { REVISION_LABEL } from "../../shared/planning/names.ts";

const at = { namespace: "ci", resourceVersion: "7", uid: "uid" };

function aChange(fields: Partial<Change>): Change {
  const nothing = { object: undefined, oldObject: undefined };
  return { kind: "vm", namespace: "ci", name: "web-0", statusOnly: false, ...nothing, ...fields };
}

function poolsOf(fields: Partial<Change>): string[] {
  return hintsFor(aChange(fields)).map(({ name }) => name);
}

function owner(kind: string, name: string) {
  const apiVersion = kind === "VirtualMachinePool" ? "pool.kubevirt.io/v1beta1" : "kubevirt.io/v1";
  return { ownerReferences: [{ apiVersion, kind, name, uid: "owner", controller: true }] };
}

describe("the pool of a changed object", () => {
  it.each<[string, Partial<Change>, readonly string[]]>([
    ["is the pool itself", { kind: "pool", name: "web" }, ["web"]],
    [
      "is the controller",
      { object: { metadata: { ...at, name: "db", ...owner("VirtualMachinePool", "web") } } },
      ["web"],
    ],
    [
      "is the pool of the machine that controls it",
      { kind: "disk", object: { metadata: { ...at, name: "disk-3", ...owner("VirtualMachine", "web-3") } } },
      ["web"],
    ],
    [
      "is in the revision label",
      { object: { metadata: { ...at, name: "db", labels: { [REVISION_LABEL]: "web-12" } } } },
      ["web"],
    ],
    [
      "is in the revision label with a suffix",
      { object: { metadata: { ...at, name: "db", labels: { [REVISION_LABEL]: "web-12-0a1b2c3d" } } } },
      ["web"],
    ],
    ["is in the name, less the ordinal", { object: { metadata: { ...at, name: "my-pool-17" } } }, ["my-pool"]],
    ["is in the name that the source gives, where it gives no object", { name: "my-pool-17" }, ["my-pool"]],
    [
      "is of the old object where that is all there is",
      { name: undefined, oldObject: { metadata: { ...at, name: "web-0", ...owner("VirtualMachinePool", "web") } } },
      ["web"],
    ],
    ["is nobody where nothing points to one", { name: "database" }, []],
    [
      "is nobody where another controls it",
      {
        name: "db",
        object: { metadata: { ...at, name: "db", ...owner("Other", "x") } },
      },
      [],
    ],
  ])("%s", (_name, fields, expected) => {
    expect(poolsOf(fields)).toEqual(expected);
  });

  it("is both the old and the new one of a machine that changes hands", () => {
    const object = { metadata: { ...at, name: "web-0", ...owner("VirtualMachinePool", "green") } };
    const oldObject = { metadata: { ...at, name: "web-0", ...owner("VirtualMachinePool", "blue") } };
    expect(poolsOf({ object, oldObject })).toEqual(["green", "blue"]);
  });

  it("wakes for a machine that is detached, and looks wide", () => {
    const object = { metadata: { ...at, name: "web-0" } };
    const oldObject = { metadata: { ...at, name: "web-0", ...owner("VirtualMachinePool", "web") } };
    expect(hintsFor(aChange({ object, oldObject }))).toEqual([{ namespace: "ci", name: "web", cause: "vm" }]);
  });
});

describe("a notice with both objects", () => {
  const machine = (metadata: object, ready: string, heartbeat: string) => ({
    metadata: { ...at, name: "web-0", ...metadata },
    status: { conditions: [{ type: "Ready", status: ready, lastProbeTime: heartbeat }] },
  });

  it("wakes nobody for a heartbeat", () => {
    const oldObject = machine({ resourceVersion: "1" }, "True", "10:00");
    expect(poolsOf({ object: machine({ resourceVersion: "2" }, "True", "10:01"), oldObject })).toEqual([]);
  });

  it.each([
    ["readiness changes", machine({}, "False", "10:00")],
    ["it is being deleted", machine({ deletionTimestamp: "2026-05-01T12:00:00Z" }, "True", "10:00")],
    ["its labels change", machine({ labels: { app: "other" } }, "True", "10:00")],
    ["its finalizers change", machine({ finalizers: ["a/b"] }, "True", "10:00")],
  ])("wakes the pool when %s", (_name, object) => {
    expect(poolsOf({ object, oldObject: machine({}, "True", "10:00") })).toEqual(["web"]);
  });

  it("wakes the pool when a live update has arrived in an instance", () => {
    const instance = (sockets: number, resourceVersion: string) => ({
      metadata: { ...at, name: "web-0", resourceVersion },
      spec: { domain: { cpu: { sockets } } },
      status: { phase: "Running", conditions: [{ type: "Ready", status: "True" }] },
    });
    const [kind, oldObject] = ["instance", instance(1, "1")] as const;
    expect(poolsOf({ kind, object: instance(2, "2"), oldObject })).toEqual(["web"]);
    expect(poolsOf({ kind, object: instance(1, "2"), oldObject })).toEqual([]);
  });

  it("wakes a pool whose spec changes, and not one whose managed fields do", () => {
    const pool = (generation: number, extra: object) => ({
      metadata: { ...at, name: "web", generation, ...extra },
      spec: { replicas: generation },
    });
    const kind = "pool";
    expect(poolsOf({ kind, name: "web", object: pool(2, {}), oldObject: pool(1, {}) })).toEqual(["web"]);
    const written = (manager: string, time: string) =>
      pool(1, { managedFields: [{ manager, operation: "Update", time }] });
    for (const object of [pool(1, { managedFields: [{}] }), written("kubectl", "2026-05-01T12:00:00Z")])
      expect(poolsOf({ kind, name: "web", object, oldObject: pool(1, {}) })).toEqual([]);
    // Who looks after the pool besides us is seen at once.
    const [oldObject, object] = ["12:00", "12:01"].map((time) => written("virt-controller", `2026-05-01T${time}:00Z`));
    expect(poolsOf({ kind, name: "web", object, oldObject })).toEqual(["web"]);
    expect(poolsOf({ kind, name: "web", object, oldObject: object })).toEqual([]);
  });
});

it("knows the kinds that matter by group and plural", () => {
  expect(changedKind("pool.kubevirt.io", "virtualmachinepools")).toBe("pool");
  expect(changedKind("kubevirt.io", "virtualmachines")).toBe("vm");
  expect(changedKind("kubevirt.io", "virtualmachineinstances")).toBe("instance");
  expect(changedKind("cdi.kubevirt.io", "datavolumes")).toBe("disk");
  expect(changedKind("apps", "deployments")).toBeUndefined();
  expect(changedKind("", "constructor")).toBeUndefined();
});

it.each([
  ["the namespace", { namespace: "n".repeat(400_000), object: undefined, oldObject: undefined }],
  ["the name", { kind: "pool", name: "../web" }],
  ["the owner", { object: { metadata: { ...at, ...owner("VirtualMachinePool", "w".repeat(400_000)) } } }],
  ["the revision label", { object: { metadata: { labels: { [REVISION_LABEL]: "We b-1" } } } }],
] as const)("wakes nobody where %s is none that Kubernetes allows", (_what, fields) => {
  expect(hintsFor(aChange(fields))).toEqual([]);
});

it.each([
  ["a member of their group", ["system:authenticated", "vmpool-functions"], true],
  ["a ServiceAccount of their namespace", ["system:serviceaccounts", "system:serviceaccounts:vmpool-functions"], true],
  ["another ServiceAccount", ["system:serviceaccounts", "system:serviceaccounts:ci"], false],
  ["a user", ["system:authenticated"], false],
  ["nobody who is told", undefined, false],
] as const)("takes what %s writes to machines, or claims in pools, for the functions' own: %j", (_who, groups, own) => {
  const write = (kind: ChangedKind, subresource?: string) => isOwnWrite({ kind, subresource, groups });
  expect([write("vm"), write("vm", "status"), write("instance"), write("pool"), write("pool", "")]).toEqual(
    Array(5).fill(own),
  );
  // Other functions write these, and nobody looks again by himself.
  expect([write("pool", "status"), write("pool", "scale"), write("disk")]).toEqual(Array(3).fill(false));
});
