/** Follows the machines of a namespace through a watch, so that no state in between goes unseen. */
import * as z from "zod";
import type { Connection } from "../../shared/clusters/connection.ts";
import { eventually } from "./eventually.ts";
import { isTerminating, type KubeObject, parseList, parseObject } from "./objects.ts";

export interface MachineCounts {
  /** Those on their way out included. */
  readonly existing: number;
  readonly live: number;
}

export interface Recording {
  /** Every state since the beginning or the last `restart`, the present one included. */
  states(): Promise<readonly MachineCounts[]>;
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
export async function recordMachines({
  connection,
  namespace,
  counts = () => true,
}: RecordingOptions): Promise<Recording> {
  const path = `/apis/kubevirt.io/v1/namespaces/${namespace}/virtualmachines`;
  const list = async () =>
    parseList((await connection.send({ method: "GET", path, signal: AbortSignal.timeout(30_000) })).body);
  const first = await list();
  const machines = new Map(first.items.map((machine) => [machine.metadata.uid, machine]));
  const stateNow = (): MachineCounts => {
    const counted = [...machines.values()].filter(counts);
    return { existing: counted.length, live: counted.filter((machine) => !isTerminating(machine)).length };
  };
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
