import { describe, expect, it } from "vitest";
import { aClaim, anInstance, aPool, aRevision, aSpec, aVm, type Json, LABELS } from "../support/builders.ts";
import { planOf } from "./plans.ts";

/** The first generation had another run strategy, so that no guest minds. */
const OLD = aSpec({ virtualMachineTemplate: { metadata: { labels: LABELS }, spec: { running: false, template: {} } } });

/** Two machines follow the second generation; the third, of the first, is as given. */
function prunedWith(third: Json): readonly string[] {
  const [old, now] = [aRevision({ data: OLD }), aRevision({ name: "web-2", generation: 2 })];
  const { actions } = planOf({
    pool: aPool({ generation: 2, claim: aClaim({ generation: 2, rollout: undefined }) }),
    vms: [aVm(0, { revision: "web-2" }), aVm(1, { revision: "web-2" }), aVm(2, { revision: "web-1", ...third })],
    revision: now,
    revisions: [old, now],
    instances: [0, 1].map((ordinal) => anInstance(ordinal, { revision: "web-2" })),
    ownRevisions: [old, now],
  });
  return actions.flatMap((action) => (action.kind === "pruneRevision" ? [action.revision.name] : []));
}

describe("an old revision", () => {
  it("goes although the last machine that names it is still on its way out, because nobody looks later", () => {
    expect(prunedWith({ terminating: true })).toEqual(["web-1"]);
  });

  it("stays while a machine is to be moved from it", () => {
    expect(prunedWith({})).toEqual([]);
  });
});
