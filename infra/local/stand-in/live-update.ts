/**
 * Decides which changes of a machine's template its running instance can take, and whether it needs a restart. Pure.
 *
 * As KubeVirt does, it looks at `spec.template.spec` alone: labels and annotations of the template, such as the revision that
 * a pool writes there, neither reach a running instance nor make a restart necessary.
 */
import { isDeepStrictEqual } from "node:util";
import { isRecord, recordOf } from "../../../shared/planning/json.ts";
import { type Instance, isTrue, type Machine } from "./objects.ts";
import { behaviourOf } from "./pace.ts";
import { bytesOf, quantityOf } from "./quantity.ts";

/** How changes of a template reach running instances: at once where they can, or with the next start. */
export type Rollout = "LiveUpdate" | "Stage";

export interface LiveUpdate {
  /** The instance's spec from now on; undefined when it stays. */
  readonly spec: object | undefined;
  /** Why the template takes effect in full only after a restart; undefined when it does not need one. */
  readonly restart: string | undefined;
}

type Fields = Readonly<Record<string, unknown>>;

/** KubeVirt's `maxHotplugRatio` when nobody sets one. */
const HOTPLUG_RATIO = 4;
const GUEST_MIN_BYTES = 2 ** 30;
const GUEST_STEP_BYTES = 2 ** 21;
/** Fields directly below the spec that a running instance takes as they are. */
const LIVE_FIELDS = ["nodeSelector", "affinity", "tolerations"] as const;

const NOTHING: LiveUpdate = { spec: undefined, restart: undefined };

/** What is to happen to a running instance, given the machine's present template. */
export function planLiveUpdate(machine: Machine, instance: Instance, rollout: Rollout): LiveUpdate {
  const wanted = recordOf(machine.spec.template.spec);
  const present = recordOf(instance.spec);
  const isLive = rollout === "LiveUpdate";
  if (!isDeepStrictEqual(fixedPart(wanted, wanted, present, isLive), fixedPart(present, wanted, present, isLive)))
    return { spec: undefined, restart: "the template differs from what the running instance was started with" };
  if (!isLive || behaviourOf(instance).ignoresLiveUpdate) return NOTHING;

  const sockets = planSockets(wanted, present);
  const guest = planGuest(wanted, present, instance);
  const changes = [sockets.change, guest.change, ...LIVE_FIELDS.map((field) => planField(field, wanted, present))];
  const made = changes.filter((change) => change !== undefined);
  return {
    spec: made.length === 0 ? undefined : made.reduce((spec, change) => change(spec), present),
    restart: sockets.restart ?? guest.restart,
  };
}

/** The spec that an instance starts with: under LiveUpdate with room to grow. */
export function specAtStart(machine: Machine, rollout: Rollout): object {
  const spec = recordOf(machine.spec.template.spec);
  if (rollout !== "LiveUpdate") return spec;
  const cpu = cpuOf(spec);
  const sockets = socketsOf(cpu);
  const grown =
    cpu === undefined || sockets === 0 || cpu["maxSockets"] !== undefined
      ? spec
      : withDomain(spec, "cpu", { maxSockets: sockets * HOTPLUG_RATIO });
  const guest = guestBytesOf(spec);
  if (guest === undefined || !canGrow(guest) || memoryOf(spec)?.["maxGuest"] !== undefined) return grown;
  return withDomain(grown, "memory", { maxGuest: quantityOf(guest * HOTPLUG_RATIO) });
}

/** What the instance's status says of its size; it follows the spec when a live change has arrived in the guest. */
export function sizeStatus(spec: unknown, memory: unknown): Record<string, unknown> {
  const { cores = 1, threads = 1, sockets = 1 } = cpuOf(recordOf(spec)) ?? {};
  const guest = memoryOf(recordOf(spec))?.["guest"];
  const atStart = isRecord(memory) ? memory["guestAtBoot"] : guest;
  return {
    currentCPUTopology: { cores, sockets, threads },
    ...(guest === undefined ? {} : { memory: { guestAtBoot: atStart, guestCurrent: guest, guestRequested: guest } }),
  };
}

type Change = (spec: Fields) => Fields;
interface SizeChange {
  readonly change?: Change;
  readonly restart?: string;
}

/** More sockets, up to the room that was left at the start. */
function planSockets(wanted: Fields, present: Fields): SizeChange {
  const [wantedCpu, presentCpu] = [cpuOf(wanted), cpuOf(present)];
  if (wantedCpu === undefined || presentCpu === undefined) return {};
  const [sockets, before] = [socketsOf(wantedCpu), socketsOf(presentCpu)];
  if (sockets === before) return {};
  const max = presentCpu["maxSockets"];
  if (sockets > (typeof max === "number" ? max : 0))
    return { restart: "the template asks for more CPU sockets than the running instance has room for" };
  if (sockets < before) return { restart: "a running instance does not give CPU sockets back" };
  return { change: (spec) => withDomain(spec, "cpu", { sockets }) };
}

/** More memory, up to the room that was left at the start, or less, down to what it started with. */
function planGuest(wanted: Fields, present: Fields, instance: Instance): SizeChange {
  const [guest, before] = [guestBytesOf(wanted), guestBytesOf(present)];
  if (guest === undefined || before === undefined || guest === before) return {};
  if (!isTrue(instance.status.conditions, "LiveMigratable"))
    return { restart: "memory changes only in an instance that can be migrated" };
  const max = bytesOf(memoryOf(present)?.["maxGuest"]);
  if (max === undefined || !canGrow(guest))
    return { restart: "memory changes only from 1Gi upward, in steps of 2Mi, in an instance that was started for it" };
  const memory = instance.status["memory"];
  const atStart = bytesOf(isRecord(memory) ? memory["guestAtBoot"] : undefined) ?? before;
  if (guest < atStart) return { restart: "the template asks for less memory than the instance was started with" };
  if (guest > max) return { restart: "the template asks for more memory than the running instance has room for" };
  const value = memoryOf(wanted)?.["guest"];
  return { change: (spec) => withDomain(spec, "memory", { guest: value }) };
}

function planField(field: string, wanted: Fields, present: Fields): Change | undefined {
  if (isDeepStrictEqual(orNothing(wanted[field]), orNothing(present[field]))) return undefined;
  return ({ [field]: _, ...rest }) => (wanted[field] === undefined ? rest : { ...rest, [field]: wanted[field] });
}

/** Of either spec, what only a start changes; what the instance got beyond its template is no difference. */
function fixedPart(spec: Fields, wanted: Fields, present: Fields, isLive: boolean): Fields {
  const { domain, ...rest } = spec;
  const isSocketsLive = isLive && cpuOf(wanted) !== undefined && cpuOf(present) !== undefined;
  const isGuestLive = isLive && memoryOf(wanted)?.["guest"] !== undefined;
  const cpu = without(cpuOf(spec), [
    ...(isSocketsLive ? ["sockets"] : []),
    ...(cpuOf(wanted)?.["maxSockets"] === undefined ? ["maxSockets"] : []),
  ]);
  const memory = without(memoryOf(spec), [
    ...(isGuestLive ? ["guest"] : []),
    ...(memoryOf(wanted)?.["maxGuest"] === undefined ? ["maxGuest"] : []),
  ]);
  const isMemoryEmpty = isGuestLive && Object.keys(memory ?? {}).length === 0;
  return {
    ...(isLive ? without(rest, LIVE_FIELDS) : rest),
    domain: { ...recordOf(domain), cpu, memory: isMemoryEmpty ? undefined : memory },
  };
}

function withDomain(spec: Fields, part: "cpu" | "memory", changes: Fields): Fields {
  const domain = recordOf(spec["domain"]);
  return { ...spec, domain: { ...domain, [part]: { ...recordOf(domain[part]), ...changes } } };
}

function without(fields: Fields | undefined, names: readonly string[]): Fields | undefined {
  return fields && Object.fromEntries(Object.entries(fields).filter(([name]) => !names.includes(name)));
}

function cpuOf(spec: Fields): Fields | undefined {
  const cpu = recordOf(spec["domain"])["cpu"];
  return isRecord(cpu) ? cpu : undefined;
}

function memoryOf(spec: Fields): Fields | undefined {
  const memory = recordOf(spec["domain"])["memory"];
  return isRecord(memory) ? memory : undefined;
}

function socketsOf(cpu: Fields | undefined): number {
  const sockets = cpu?.["sockets"];
  return typeof sockets === "number" ? sockets : 0;
}

function guestBytesOf(spec: Fields): number | undefined {
  return bytesOf(memoryOf(spec)?.["guest"]);
}

function canGrow(bytes: number): boolean {
  return bytes >= GUEST_MIN_BYTES && bytes % GUEST_STEP_BYTES === 0;
}

/** To KubeVirt, empty and absent are the same. */
function orNothing(value: unknown): unknown {
  return typeof value === "object" && value !== null && Object.keys(value).length === 0 ? undefined : value;
}
