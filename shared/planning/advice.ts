/** What is legal about a pool and yet not what its owner can want; told once for each generation, and nothing is held for it. */
import { parseClaim } from "./claim.ts";
import type { Pool, PoolSpec } from "./model.ts";
import { CLAIM_ANNOTATION } from "./names.ts";
import type { Announcement } from "./status.ts";
import type { Verdict } from "./verdict.ts";

interface Advice {
  /** Of the Kubernetes Event. */
  readonly reason: string;
  readonly message: string;
}

/** What there is to tell of the generation that no claim has named yet; nothing of one that was seen to before. */
export function adviseOwner(pool: Pool, verdict: Verdict): readonly string[] {
  return advicesOn(pool, verdict).map(({ message }) => message);
}

/** The same as Kubernetes Events, to be written when the generation's first claim was. */
export function announceAdvice(pool: Pool, verdict: Verdict): readonly Announcement[] {
  const key = String(pool.generation);
  return advicesOn(pool, verdict).map((advice) => ({ type: "Warning", key, ...advice }));
}

function advicesOn(pool: Pool, verdict: Verdict): readonly Advice[] {
  if (!verdict.legal || pool.deleting) return [];
  const claim = parseClaim(pool.annotations?.[CLAIM_ANNOTATION]);
  if (claim?.generation === pool.generation) return [];
  const labels = instanceLabelsProblem(verdict);
  return [
    ...(labels === undefined ? [] : [{ reason: "LabelsMissing", message: labels }]),
    ...memoryFields(verdict.spec).map((field) => ({ reason: "MemoryNotKept", message: describeMemory(field) })),
  ];
}

/** The strategies that ask for more than this version keeps. */
function memoryFields({ scaleInStrategy }: PoolSpec): readonly string[] {
  const strategies = ["proactive", "opportunistic"] as const;
  const asking = strategies.filter((name) => scaleInStrategy?.[name]?.statePreservation === "Online");
  return asking.map((name) => `spec.scaleInStrategy.${name}.statePreservation`);
}

function describeMemory(field: string): string {
  return `${field} is Online: disks are kept as with Offline, and the memory of machines is not kept by this version; a machine that takes over kept disks boots from them`;
}

/** Launcher pods carry the labels of the instance template; by the pool's selector they are looked for. */
function instanceLabelsProblem({ spec, selector }: Extract<Verdict, { legal: true }>): string | undefined {
  const labels = spec.virtualMachineTemplate.spec.template.metadata?.labels ?? {};
  if (selector.matches(labels)) return undefined;
  return `selector "${selector.text}" does not match spec.virtualMachineTemplate.spec.template.metadata.labels, which are ${JSON.stringify(labels)}: a Service with this selector finds no pods, nor does an autoscaler; give the instances the same labels as the machines`;
}
