import { describe, expect, it } from "vitest";
import { findPushed, readLogEntry } from "../../shared/events/pub-sub.ts";
import { aLogEntry, aPush } from "../support/log-entries.ts";

describe("a LogEntry of GKE", () => {
  it("tells of the object that its resource name names", () => {
    expect(readLogEntry(aLogEntry())).toEqual({
      kind: "pool",
      namespace: "ci",
      name: "web",
      statusOnly: false,
      object: undefined,
      oldObject: undefined,
    });
  });

  it.each([
    "io.kubevirt.pool.v1beta1.virtualmachinepools.patch",
    "io.kubevirt.pool.v1beta1.VirtualMachinePools.Patch",
    "pool.kubevirt.io.v1beta1.virtualmachinepools.patch",
    "patch",
  ])("may write its method in whatever form ends in the verb: %s", (methodName) => {
    expect(readLogEntry(aLogEntry({ methodName }))).toMatchObject({ kind: "pool", name: "web" });
  });

  it.each([
    ["a status", "kubevirt.io/v1/namespaces/ci/virtualmachines/web-0/status", { kind: "vm", statusOnly: true }],
    ["a scale", "pool.kubevirt.io/v1beta1/namespaces/ci/virtualmachinepools/web/scale", { kind: "pool", name: "web" }],
    ["a path", "/apis/kubevirt.io/v1/namespaces/ci/virtualmachineinstances/web-0", { kind: "instance" }],
    ["a disk", "cdi.kubevirt.io/v1beta1/namespaces/ci/datavolumes/root-web-0", { kind: "disk", name: "root-web-0" }],
  ])("may be about %s", (_what, resourceName, expected) => {
    expect(readLogEntry(aLogEntry({ resourceName }))).toMatchObject(expected);
  });

  it.each([
    ["reads", { methodName: "io.kubevirt.pool.v1beta1.virtualmachinepools.get" }],
    ["was refused", { status: { code: 7, message: "Forbidden" } }],
    ["is about a collection", { resourceName: "kubevirt.io/v1/namespaces/ci/virtualmachines" }],
    ["is about another kind", { resourceName: "core/v1/namespaces/ci/pods/web-0" }],
    ["is about the cluster", { resourceName: "rbac.authorization.k8s.io/v1/clusterroles/admin" }],
    ["names nothing", { resourceName: undefined }],
    ["is of another service", { serviceName: "container.googleapis.com" }],
    ["has no method", { methodName: undefined }],
  ])("that %s tells of nothing", (_what, payload) => {
    expect(readLogEntry(aLogEntry(payload))).toBe("ignored");
  });

  it("of another log tells of nothing", () => {
    expect(readLogEntry({ logName: "projects/p/logs/syslog", textPayload: "x" })).toBe("ignored");
  });

  it.each([[undefined], [{}], [[]], ["text"], [{ logName: 1 }], [aLogEntry({ status: "x" })]])(
    "is not what it says it is: %j",
    (entry) => {
      expect(readLogEntry(entry)).toBe("bad");
    },
  );
});

it("is found in the message of a push, and in nothing else", () => {
  expect(findPushed(aPush(aLogEntry()))).toEqual({ entry: JSON.parse(JSON.stringify(aLogEntry())) });
  expect(findPushed({ message: { data: "%" }, subscription: "s" })).toEqual({ entry: undefined });
  for (const body of [undefined, {}, { message: { data: "e30=" } }, { message: {}, subscription: "s" }, aLogEntry()])
    expect(findPushed(body)).toBeUndefined();
});
