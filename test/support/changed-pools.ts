/** Builders of pools whose template was changed and is not rolled out yet, as far as their claim knows. */
import type { Claim } from "../../shared/planning/claim.ts";
import type { Instance, Vm } from "../../shared/planning/model.ts";
import { aClaim, aPool, aRevision, aSpec, type Json, LABELS, type ObservationOverrides } from "./builders.ts";

/** The template of `aSpec()` with these changes. */
export function aTemplate({ guest = {}, ...vm }: { readonly guest?: Json; readonly [field: string]: unknown } = {}) {
  const template = { metadata: {}, spec: { domain: {}, ...guest } };
  return { metadata: { labels: LABELS }, spec: { runStrategy: "Always", template, ...vm } };
}

/** A guest's memory, and templates that can make something else of a machine: each is named by what it takes. */
export const MEMORY = { domain: { memory: { guest: "1Gi" } } };
export const DISKS = { dataVolumeTemplates: [{ metadata: { name: "data" }, spec: { storage: {} } }] };
export const RESTARTS = aTemplate({ guest: { domain: { cpu: { cores: 2 } } } });
export const REPLACES = aTemplate(DISKS);
/** From `MEMORY`. */
export const LIVES = aTemplate({ guest: { domain: { memory: { guest: "2Gi" } } } });
export const ANNOTATES = { ...aTemplate(), metadata: { labels: LABELS, annotations: { team: "a" } } };

export interface ChangedPool extends ObservationOverrides {
  /** The template in force, and that of revision `web-1`. */
  readonly to?: Json;
  readonly from?: Json;
  /** More fields of the spec; as many replicas as machines unless told otherwise. */
  readonly spec?: Json;
  readonly claim?: Partial<Claim>;
  readonly vms: readonly Vm[];
  readonly instances?: readonly Instance[];
}

/** What is seen of a pool at generation 2, whose template restarts guests unless told otherwise. */
export function aChangedPool(changes: ChangedPool): ObservationOverrides {
  const { to = RESTARTS, from = aTemplate(), spec = {}, claim = {}, vms, instances = [], ...seen } = changes;
  const wanted = aSpec({ replicas: vms.length, virtualMachineTemplate: to, ...spec });
  const revisions = [
    aRevision({ data: aSpec({ virtualMachineTemplate: from }) }),
    aRevision({ name: "web-2", generation: 2, data: wanted }),
  ];
  return {
    pool: aPool({ generation: 2, spec: wanted, claim: aClaim({ generation: 2, rollout: undefined, ...claim }) }),
    vms,
    instances,
    revisions,
    ownRevisions: revisions,
    liveUpdates: false,
    ...seen,
  };
}
