/** How actions read, in logs and in what `npm run pool -- plan` shows. */
import { expect, it } from "vitest";
import { type Action, describeAction } from "../../shared/planning/plan.ts";
import { aClaim, aDisk, anInstance, aRevision, aVm } from "../support/builders.ts";

const vm = aVm(3);
const instance = anInstance(3);
const disk = aDisk(3);
const revision = aRevision();
const why = "because";
const { create, delete: deletes, restart, rollout, waitUntil } = aClaim();
const items = { create, delete: deletes, restart, rollout, waitUntil };

const LINES: readonly (readonly [string, Action])[] = [
  ["create web-3", { kind: "createVm", ordinal: 3, revision: "web-1", why }],
  ["delete web-3", { kind: "deleteVm", vm, why }],
  ["release web-3", { kind: "releaseVm", vm, why }],
  ["drop the finalizer of web-3", { kind: "dropVmFinalizer", vm, why }],
  ["drop the pool's finalizer", { kind: "dropPoolFinalizer", why }],
  ["revoke the deletion of web-3", { kind: "revokeDelete", vm, why }],
  ["release disk data-3 of web-3", { kind: "changeDisk", vm, disk, metadata: {}, released: true, why }],
  ["change the owners of disk data-3 of web-3", { kind: "changeDisk", vm, disk, metadata: {}, released: false, why }],
  ["note the kept disks on web-3", { kind: "markVm", vm, disks: null, why }],
  ["revoke the restart of web-3", { kind: "revokeRestart", instance, vm, why }],
  ["update web-3 to web-2", { kind: "updateVm", vm, revision: "web-2", patch: {}, why }],
  ["restart web-3", { kind: "restartInstance", vm, instance, why }],
  ["label the instance web-3 with web-2", { kind: "labelInstance", instance, revision: "web-2", why }],
  ["delete revision web-1", { kind: "pruneRevision", revision, why }],
  ["create revision web-2", { kind: "createRevision", name: "web-2", why }],
  ["write the claim", { kind: "writeClaim", items, addFinalizer: false, healing: undefined, why }],
];

it.each(LINES)("%s, and why", (line, action) => {
  expect(describeAction("web", action)).toBe(`${line}: because`);
});
