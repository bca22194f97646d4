/** Stories of the simulation that went wrong once: roll-outs that met something else. */
import { describe, expect, it } from "vitest";
import {
  aClaim,
  anInstance,
  anInstanceUid,
  aPool,
  aRevision,
  aSpec,
  aVm,
  aVmSpec,
  aVmUid,
  type ObservationOverrides,
} from "../support/builders.ts";
import { ACTING, claimIn, kindsOf, namesOf, planOf } from "./plans.ts";

const SPEC = aSpec({ maxUnavailable: 1 });
const OLD = aRevision({ name: "web-1", data: withGuest({ terminationGracePeriodSeconds: 1 }) });
const NEW = aRevision({ name: "web-2", generation: 2, data: SPEC });

function withGuest(more: object) {
  const spec = { runStrategy: "Always", template: { metadata: {}, spec: { domain: {}, ...more } } };
  return aSpec({ virtualMachineTemplate: { metadata: { labels: { app: "web" } }, spec } });
}

/** All machines have the new template, and all instances the old one. */
function midRollOut(overrides: ObservationOverrides = {}): ObservationOverrides {
  return {
    pool: aPool({ generation: 2, spec: SPEC, claim: aClaim({ generation: 2, rollout: undefined }) }),
    vms: [0, 1, 2].map((ordinal) => aVm(ordinal, { revision: "web-2", spec: aVmSpec("web-2") })),
    instances: [0, 1, 2].map((ordinal) => anInstance(ordinal, { revision: "web-1" })),
    revisions: [OLD, NEW],
    ownRevisions: [OLD, NEW],
    ...overrides,
  };
}

function restartsOf(overrides: ObservationOverrides): number {
  return kindsOf(planOf(overrides, ACTING)).filter((kind) => kind === "restartInstance").length;
}

describe("a roll-out", () => {
  it("restarts one machine when one may be unavailable", () => {
    expect(restartsOf(midRollOut())).toBe(1);
  });

  it("waits for a machine that was asked to stop, though its instance is still ready", () => {
    const { vms = [] } = midRollOut();
    const asked = vms.map((vm) => (vm.ordinal === 0 ? { ...vm, requested: true } : vm));
    expect(restartsOf(midRollOut({ vms: asked }))).toBe(0);
  });

  it("does not take a machine whose labels left for one that is available", () => {
    const { vms = [] } = midRollOut();
    const relabelled = aVm(0, { revision: "web-2", spec: aVmSpec("web-2"), labels: { app: "other" } });
    const plan = planOf(midRollOut({ vms: [relabelled, ...vms.slice(1)] }));
    expect(namesOf(plan, "releaseVm")).toEqual(["web-0"]);
    expect(kindsOf(plan)).not.toContain("restartInstance");
  });

  it("is not over while a machine that was not looked at is only claimed for deletion", () => {
    const claimed = { ordinal: 2, uidPrefix: aVmUid(2).slice(0, 8) };
    const instances = [0, 1].map((ordinal) => anInstance(ordinal, { revision: "web-2" }));
    const plan = planOf(
      midRollOut({
        pool: aPool({
          generation: 2,
          spec: { ...SPEC, replicas: 2 },
          claim: aClaim({ generation: 2, rollout: undefined, delete: [claimed] }),
        }),
        instances: [...instances, anInstance(2, { revision: "web-1", uid: anInstanceUid(2) })],
      }),
    );
    expect(kindsOf(plan)).toContain("deleteVm");
    expect(claimIn(plan)?.rollout).toBeUndefined();
  });
});
