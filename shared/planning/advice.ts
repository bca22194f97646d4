/** What is legal about a pool and yet not what its owner can want; told when it is written and once for each generation, and nothing is held for it. */
import { parseClaim } from "./claim.ts";
import { controllerOf, isPoolOwner, type Pool, type PoolSpec, type Vm } from "./model.ts";
import { CLAIM_ANNOTATION } from "./names.ts";
import { compareText, describeLabels, describeSelector } from "./selector.ts";
import type { Announcement } from "./status.ts";
import type { Verdict } from "./verdict.ts";
import { listed, shorten } from "./wording.ts";

type Legal = Extract<Verdict, { legal: true }>;

interface Advice {
  /** Of the Kubernetes Event. */
  readonly reason: string;
  readonly message: string;
  /** The same within the 120 characters that Kubernetes advises for warnings of admission. */
  readonly warning: string;
}

/** What there is to tell of the generation that no claim has named yet; nothing of one that was seen to before. */
export function adviseOwner(pool: Pool, verdict: Verdict): readonly string[] {
  return unseenAdvice(pool, verdict).map(({ message }) => message);
}

/** The same as Kubernetes Events, to be written when the generation's first claim was. */
export function announceAdvice(pool: Pool, verdict: Verdict): readonly Announcement[] {
  const key = String(pool.generation);
  return unseenAdvice(pool, verdict).map(({ reason, message }) => ({ type: "Warning", key, reason, message }));
}

/** The same in short, for whoever writes the pool. */
export function warningsOf(verdict: Verdict): readonly string[] {
  return verdict.legal ? advicesOn(verdict).map(({ warning }) => warning) : [];
}

/** How many other pools are named, and how long a name may be: that of an owner is checked by nobody. */
const OTHERS_MAX = 3;
const NAME_LENGTH_MAX = 253;

/**
 * Machines of other pools that this pool's selector matches, too. Admission cannot know of them; a pass has read them anyway.
 * An earlier pool of the same name is no other: its machines are on their way out.
 */
export function announceOverlap(pool: Pool, verdict: Verdict, selected: readonly Vm[]): readonly Announcement[] {
  if (!verdict.legal) return [];
  const others = new Set<string>();
  for (const vm of selected) {
    const owner = controllerOf(vm);
    if (owner === undefined || vm.terminating || !isPoolOwner(owner)) continue;
    if (owner.uid !== pool.uid && owner.name !== pool.name) others.add(owner.name);
  }
  if (others.size === 0) return [];
  const names = [...others].sort(compareText);
  const message = `selector "${describeSelector(verdict.selector.text)}" also matches machines of ${listed(
    names.map((name) => shorten(name, NAME_LENGTH_MAX)),
    OTHERS_MAX,
  )}: each pool keeps to its own, but a Service or an autoscaler cannot tell them apart; give every pool a label of its own`;
  return [{ type: "Warning", reason: "SelectorOverlap", message, key: String(pool.generation), once: true }];
}

function unseenAdvice(pool: Pool, verdict: Verdict): readonly Advice[] {
  if (!verdict.legal || pool.deleting) return [];
  const claim = parseClaim(pool.annotations?.[CLAIM_ANNOTATION]);
  return claim?.generation === pool.generation ? [] : advicesOn(verdict);
}

function advicesOn(verdict: Legal): readonly Advice[] {
  return [...instanceLabelsAdvice(verdict), ...memoryAdvice(verdict.spec), ...availabilityAdvice(verdict.spec)];
}

/** Launcher pods carry the labels of the instance template; by the pool's selector they are looked for. */
function instanceLabelsAdvice({ spec, selector }: Legal): readonly Advice[] {
  const labels = spec.virtualMachineTemplate.spec.template.metadata?.labels ?? {};
  if (selector.matches(labels)) return [];
  const field = "spec.virtualMachineTemplate.spec.template.metadata.labels";
  const message = `selector "${describeSelector(selector.text)}" does not match ${field}, which are ${describeLabels(labels)}: a Service with this selector finds no pods, nor does an autoscaler; give the instances the same labels as the machines`;
  return [
    { reason: "LabelsMissing", message, warning: `${field}: not matched by spec.selector, so a Service finds no pods` },
  ];
}

/** The strategies that ask for more than this version keeps. */
function memoryAdvice({ scaleInStrategy }: PoolSpec): readonly Advice[] {
  const strategies = ["proactive", "opportunistic"] as const;
  return strategies.flatMap((name) => {
    if (scaleInStrategy?.[name]?.statePreservation !== "Online") return [];
    const field = `spec.scaleInStrategy.${name}.statePreservation`;
    const message = `${field} is Online: disks are kept as with Offline, and the memory of machines is not kept by this version; a machine that takes over kept disks boots from them`;
    return [
      { reason: "MemoryNotKept", message, warning: `${field}: Online keeps disks as Offline does, but no memory` },
    ];
  });
}

/** The default, which nobody has to write; whoever writes it means something else. */
function availabilityAdvice({ maxUnavailable, updateStrategy }: PoolSpec): readonly Advice[] {
  const isUsed = !updateStrategy?.unmanaged && !updateStrategy?.opportunistic;
  if (!isUsed || typeof maxUnavailable !== "string" || Number(maxUnavailable.slice(0, -1)) !== 100) return [];
  const says = `spec.maxUnavailable: ${maxUnavailable} lets a roll-out take all machines down at once`;
  const message = `${says}; write 25%, or the number of machines that may be missing`;
  return [{ reason: "AvailabilityNotKept", message, warning: `${says}; write 25%, say` }];
}
