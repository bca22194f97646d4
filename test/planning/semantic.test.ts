import { describe, expect, it } from "vitest";
import { canonicalText, isNothing, isNothingWhenEmpty, isSame, type Path } from "../../shared/planning/semantic.ts";

const SAME: readonly (readonly [unknown, unknown, Path])[] = [
  [null, undefined, ["hostname"]],
  [{ hostname: null }, {}, []],
  [[], undefined, ["tolerations"]],
  [{ nodeSelector: { zone: null } }, {}, []],
  [{ spec: { domain: { devices: {} } } }, {}, []],
  [{ requests: { cpu: "1000m" } }, { requests: { cpu: 1 } }, []],
  [{ hostDisk: { capacity: "1Gi" } }, { hostDisk: { capacity: "1024Mi" } }, ["volumes"]],
  [{ cpu: "1000m" }, { cpu: "1" }, ["resources", "requests"]],
  ["1Gi", "1024Mi", ["memory", "guest"]],
  [{ memory: { guest: "a lot" } }, { memory: { guest: "a lot" } }, []],
  [[[], [null]], [null, [undefined]], ["list"]],
  [{ constructor: { name: "1" } }, { constructor: { name: "1" } }, []],
  [{ hostname: "" }, {}, []],
  [{ cpu: { cores: 0, dedicatedCpuPlacement: false } }, { cpu: {} }, ["domain"]],
  [{ http: { url: "u", secretRef: "", certConfigMap: "" } }, { http: { url: "u" } }, ["source"]],
  [{ http: { secretRef: "" } }, { http: { secretRef: null } }, ["source"]],
  [[{ key: "a", value: "" }], [{ key: "a" }], ["tolerations"]],
  [{ disks: [{ disk: { readonly: false } }] }, { disks: [{ disk: {} }] }, ["devices"]],
  [{ metadata: { name: "" } }, {}, []],
  [{ features: { acpi: {}, smm: {} } }, { features: { smm: {} } }, ["domain"]],
  [{ machine: { type: "" } }, { machine: {} }, ["domain"]],
  [{ hostDisk: { path: "/d", capacity: "0" } }, { hostDisk: { path: "/d" } }, ["volumes"]],
  [{ resourceFieldRef: { resource: "r", divisor: "0" } }, { resourceFieldRef: { resource: "r" } }, ["fields"]],
  [{ dataVolumeTemplates: [{ a: 1 }, { a: 2 }] }, { dataVolumeTemplates: [{ a: 2 }, { a: 1 }] }, []],
];

const DIFFERENT: readonly (readonly [unknown, unknown, Path])[] = [
  [{ cpu: false }, {}, []],
  [{ interfaces: [{ masquerade: {} }] }, { interfaces: [{}] }, []],
  [{}, undefined, ["masquerade"]],
  [{}, undefined, []],
  [[null], undefined, ["tolerations"]],
  [[{ key: "a" }], [{ key: "b" }], ["tolerations"]],
  [{ labels: { guest: "1" } }, { labels: { guest: "1000m" } }, []],
  [{ memory: { hugepages: "1Gi" } }, { memory: { hugepages: "1024Mi" } }, []],
  [{ guest: "1Gi" }, { guest: "1024Mi" }, []],
  [{ capacity: "1Gi" }, { capacity: "1024Mi" }, ["volumes"]],
  [{ requests: { cpu: "1" } }, { requests: { cpu: "2" } }, []],
  [{ requests: { cpu: "x" } }, { requests: { cpu: "y" } }, []],
  [{ hostDisk: { capacity: "1Gi" } }, { hostDisk: {} }, ["volumes"]],
  [{ running: false }, {}, []],
  [{ runStrategy: "" }, {}, []],
  [{ terminationGracePeriodSeconds: 0 }, {}, ["template", "spec"]],
  [{ autoattachGraphicsDevice: false }, {}, ["devices"]],
  [{ disks: [{ bootOrder: 0 }] }, { disks: [{}] }, ["devices"]],
  [{ storage: { storageClassName: "" } }, { storage: {} }, ["spec"]],
  [{ registry: { secretRef: "", url: "u" } }, { registry: { url: "u" } }, ["source"]],
  [{ registry: { certConfigMap: "" } }, { registry: {} }, ["source"]],
  [{ disks: [{ cdrom: { readonly: false } }] }, { disks: [{ cdrom: {} }] }, ["devices"]],
  [{ acpi: {} }, {}, ["firmware"]],
  [{ memory: { guest: "0" } }, { memory: {} }, ["domain"]],
  [{ requests: { cpu: "0" } }, { requests: {} }, ["resources"]],
  [{ unknownToUs: "" }, {}, []],
  [{ labels: { name: "", hostname: "" } }, { labels: {} }, ["metadata"]],
  [{ annotations: { "http/secretRef": "" } }, {}, ["metadata"]],
  [{ nodeSelector: { tag: "" } }, {}, []],
  [{ matchLabels: { version: "" } }, {}, ["selector"]],
  [{ hostname: "0" }, {}, []],
  [{ dataVolumeTemplates: [{ a: 1 }, { a: 1 }] }, { dataVolumeTemplates: [{ a: 1 }] }, []],
];

describe("two parts of a VM", () => {
  it.each(SAME)("say the same to KubeVirt: %j and %j at %j", (a, b, path) => {
    expect(isSame(a, b, path)).toBe(true);
    expect(canonicalText(b, path)).toBe(canonicalText(a, path));
  });

  it.each(DIFFERENT)("say different things to KubeVirt: %j and %j at %j", (a, b, path) => {
    expect(isSame(a, b, path)).toBe(false);
    expect(canonicalText(b, path)).not.toBe(canonicalText(a, path));
  });
});

describe("a part of a VM", () => {
  it.each<[unknown, Path, boolean]>([
    [undefined, ["hostname"], true],
    [null, ["hostname"], true],
    [[], ["tolerations"], true],
    [{}, ["nodeSelector"], true],
    [{ a: null }, ["metadata", "labels"], true],
    [{ devices: {} }, ["domain"], true],
    [{ cpu: {} }, ["domain"], false],
    [{}, ["affinity"], false],
    [{}, [], false],
    ["", ["hostname"], true],
    ["", ["labels", "hostname"], false],
    [0, ["cpu", "sockets"], true],
    [{ acpi: {} }, ["features"], false],
    ["", ["storageClassName"], false],
    [false, ["running"], false],
    [0, ["bootOrder"], false],
    [[null], ["tolerations"], false],
  ])("%j at %j says nothing: %s", (value, path, nothing) => expect(isNothing(value, path)).toBe(nothing));

  it("may be absent where it is a map, or a struct that Go holds by value", () => {
    const [byValue, byPointer] = [
      ["features", "acpi"],
      ["firmware", "acpi"],
    ];
    const holders = [["labels"], ["domain", "devices"], byValue, byPointer, ["affinity"], ["masquerade"], []];
    expect(holders.map(isNothingWhenEmpty)).toEqual([true, true, true, false, false, false, false]);
  });
});
