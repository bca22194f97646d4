/** Follows the machines or the guests of a namespace through a watch, so that no state in between goes unseen. */
import * as z from "zod";
import type { Connection } from "../../shared/clusters/connection.ts";
import { eventually } from "./eventually.ts";
import { conditionOf, isTerminating, type KubeObject, parseList, parseObject } from "./objects.ts";

export interface MachineCounts {
  /** Those on their way out included. */
  readonly existing: number;
  readonly live: number;
}

export interface Recording<State = MachineCounts> {
  /** Every state since the beginning or the last `restart`, the present one included. */
  states(): Promise<readonly State[]>;
  /** Forgets all states but the present one. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export interface RecordingOptions {
  readonly connection: Connection;
  readonly namespace: string;
  /** Which machines count; all when absent. */
  readonly counts?: (machine: KubeObject) => boolean;
}

const eventSchema = z.object({ type: z.string(), object: z.unknown() });

/** Begins with what there is now. */
export function recordMachines({ counts = () => true, ...where }: RecordingOptions): Promise<Recording> {
  return record({ ...where, plural: "virtualmachines" }, (machines): MachineCounts => {
    const counted = machines.filter(counts);
    return { existing: counted.length, live: counted.filter((machine) => !isTerminating(machine)).length };
  });
}

/** The instances of a namespace at one instant. */
export interface GuestState {
  /** By this process's clock, in milliseconds. */
  readonly atMs: number;
  /** UIDs by the name of the machine; of those that are ready and not on their way out, and of all. */
  readonly available: ReadonlyMap<string, string>;
  readonly existing: ReadonlyMap<string, string>;
}

/** Begins with what there is now. */
export function recordGuests(where: Omit<RecordingOptions, "counts">): Promise<Recording<GuestState>> {
  const uids = (guests: readonly KubeObject[]) =>
    new Map(guests.map(({ metadata }) => [metadata.name, metadata.uid] as const));
  return record({ ...where, plural: "virtualmachineinstances" }, (guests) => ({
    atMs: performance.now(),
    available: uids(guests.filter(isAvailable)),
    existing: uids(guests),
  }));
}

/** Whether the guest can be used: it runs, is ready, and is not about to go. */
export function isAvailable(instance: KubeObject): boolean {
  const isReady = conditionOf(instance, "Ready")?.status === "True";
  return isReady && instance.status?.phase === "Running" && !isTerminating(instance);
}

async function record<State>(
  { connection, namespace, plural }: Omit<RecordingOptions, "counts"> & { readonly plural: string },
  look: (objects: readonly KubeObject[]) => State,
): Promise<Recording<State>> {
  const path = `/apis/kubevirt.io/v1/namespaces/${namespace}/${plural}`;
  const list = async () =>
    parseList((await connection.send({ method: "GET", path, signal: AbortSignal.timeout(30_000) })).body);
  const first = await list();
  const machines = new Map(first.items.map((machine) => [machine.metadata.uid, machine]));
  const stateNow = () => look([...machines.values()]);
  let states = [stateNow()];
  const stopping = new AbortController();
  const follow = async () => {
    const query = `watch=1&resourceVersion=${first.resourceVersion}`;
    for await (const line of connection.watch(`${path}?${query}`, stopping.signal)) {
      const event = eventSchema.parse(line);
      if (event.type === "ERROR") throw new Error(`the watch of ${namespace} ended: ${JSON.stringify(event.object)}`);
      const machine = parseObject(event.object);
      if (event.type === "DELETED") machines.delete(machine.metadata.uid);
      else machines.set(machine.metadata.uid, machine);
      states.push(stateNow());
    }
  };
  let failure: unknown;
  const followed = follow().catch((error: unknown) => {
    failure = stopping.signal.aborted ? undefined : error;
  });
  /** The watch may be behind a list that was read before. */
  const catchUp = async () => {
    const wanted = (await list()).items.map(({ metadata }) => `${metadata.uid} ${metadata.deletionTimestamp}`).sort();
    await eventually(() => {
      if (failure !== undefined) throw failure;
      const seen = [...machines.values()].map(({ metadata }) => `${metadata.uid} ${metadata.deletionTimestamp}`);
      if (seen.sort().join() !== wanted.join()) throw new Error(`the watch of ${namespace} is behind`);
    });
  };
  return {
    async states() {
      await catchUp();
      return states;
    },
    async restart() {
      await catchUp();
      states = [stateNow()];
    },
    async stop() {
      stopping.abort();
      await followed;
    },
  };
}

/** The highest number of machines that ever existed at once. */
export function existingMax(states: readonly MachineCounts[]): number {
  return Math.max(...states.map(({ existing }) => existing));
}

/** The lowest number of machines that were ever not on their way out. */
export function liveMin(states: readonly MachineCounts[]): number {
  return Math.min(...states.map(({ live }) => live));
}

/** The highest number of `replicas` guests that were ever unavailable at once. */
export function unavailableMax(states: readonly GuestState[], replicas: number): number {
  return Math.max(...states.map(({ available }) => replicas - available.size));
}

/** How often each machine got another guest. */
export function restartsOf(states: readonly GuestState[]): Readonly<Record<string, number>> {
  const uids = new Map<string, Set<string>>();
  for (const { existing } of states) {
    for (const [name, uid] of existing) uids.set(name, (uids.get(name) ?? new Set()).add(uid));
  }
  return Object.fromEntries([...uids].map(([name, all]) => [name, all.size - 1]));
}
