/** Pools of many kinds and the people who change them all the time, whatever their cluster answers; in the end they want something that can be had. */
import { setTimeout as sleep } from "node:timers/promises";
import { BEHAVIOUR_ANNOTATION } from "../../infra/local/stand-in/pace.ts";
import type { ApiRequest, Connection } from "../../shared/clusters/connection.ts";
import { isRecord } from "../../shared/planning/json.ts";
import type { Random } from "../simulation/random.ts";
import { controllerUidOf, isTerminating, parseList, parseObject } from "./objects.ts";
import { aPool } from "./pool-manifests.ts";

const REQUEST_TIMEOUT_MS = 8_000;
const RETRY_MS = 500;
const REPLICAS_MAX = 4;
const MERGE = "application/merge-patch+json";
const VMS = "/apis/kubevirt.io/v1";
const POOLS = "/apis/pool.kubevirt.io/v1beta1";

/** In a merge patch each strategy takes the place of the others. */
const ONE_OF = { unmanaged: null, opportunistic: null, proactive: null } as const;
const SORTS = ["AscendingOrder", "DescendingOrder", "Newest", "Oldest", "Random"] as const;
const SCALE_INS = [
  { ...ONE_OF, proactive: {} },
  ...SORTS.map((sortPolicy) => ({ ...ONE_OF, proactive: { selectionPolicy: { sortPolicy } } })),
  { ...ONE_OF, unmanaged: {} },
  { ...ONE_OF, opportunistic: {} },
] as const;
const UPDATES = [
  { ...ONE_OF, proactive: {} },
  { ...ONE_OF, proactive: { selectionPolicy: { sortPolicy: "Oldest" } } },
  { ...ONE_OF, opportunistic: {} },
  { ...ONE_OF, unmanaged: {} },
] as const;
const BUDGETS = [null, 1, "50%"] as const;

/** How often each of these comes up. */
const ACTS = {
  scale: 12,
  label: 3,
  editGuest: 3,
  editDisks: 2,
  pause: 2,
  resume: 4,
  scaleIn: 2,
  update: 2,
  budget: 1,
  break: 1,
  repair: 2,
  deleteMachine: 4,
  deletePool: 1,
  breakGuests: 1,
  mendGuests: 3,
} as const;
type Act = keyof typeof ACTS;
const ACT_NAMES: readonly Act[] = ["scale", "label", "editGuest", "editDisks", "pause", "resume", "scaleIn", "update"];
const MORE_ACT_NAMES: readonly Act[] = ["budget", "break", "repair", "deleteMachine", "deletePool"];
const GUEST_ACT_NAMES: readonly Act[] = ["breakGuests", "mendGuests"];

export interface UserOptions {
  readonly connection: Connection;
  readonly namespace: string;
  readonly random: Random;
  readonly pools: number;
  /** Called before a user deletes the machine of that UID. */
  readonly onDelete: (uid: string) => void;
}

export interface Users {
  readonly names: readonly string[];
  /** What was asked for, and how much of it the cluster took. */
  readonly figures: { readonly asked: number; readonly taken: number };
  createAll(): Promise<void>;
  /** Somebody does something to some pool, again and again. */
  keepBusy(signal: AbortSignal): Promise<void>;
  /** Says until it is heard what every pool should be in the end: there, legal, not paused, and one that scales in. */
  settle(): Promise<void>;
}

/** Some pools replace machines that do not start, some have disks; their names say so. */
export function createUsers({ connection, namespace, random, pools, onDelete }: UserOptions): Users {
  const names = Array.from({ length: pools }, (_, index) => `${["plain", "healed", "disks"][index % 3]}-pool-${index}`);
  const figures = { asked: 0, taken: 0 };
  const poolsPath = `${POOLS}/namespaces/${namespace}/virtualmachinepools`;
  const machinesPath = `${VMS}/namespaces/${namespace}/virtualmachines`;
  /** Undefined when nobody knows what became of it. */
  const send = async (request: Omit<ApiRequest, "signal">) => {
    figures.asked += request.method === "GET" ? 0 : 1;
    const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
    const answer = await connection.send({ ...request, signal }).catch(() => undefined);
    if (request.method !== "GET" && answer !== undefined && answer.status < 300) figures.taken += 1;
    return answer;
  };
  const patch = (name: string, spec: object) =>
    send({ method: "PATCH", path: `${poolsPath}/${name}`, body: { spec }, contentType: MERGE });
  const create = (name: string) => send({ method: "POST", path: poolsPath, body: drawPool(name, random) });
  const deleteMachine = async (name: string) => {
    const pool = await send({ method: "GET", path: `${poolsPath}/${name}` });
    const listed = await send({ method: "GET", path: machinesPath });
    if (pool?.status !== 200 || listed?.status !== 200) return;
    const { uid } = parseObject(pool.body).metadata;
    const machines = parseList(listed.body).items.filter((one) => controllerUidOf(one) === uid && !isTerminating(one));
    const chosen = random.pick(machines);
    if (chosen === undefined) return;
    onDelete(chosen.metadata.uid);
    const body = { preconditions: { uid: chosen.metadata.uid } };
    await send({ method: "DELETE", path: `${machinesPath}/${chosen.metadata.name}`, body });
  };
  const act = async (what: Act, name: string): Promise<void> => {
    switch (what) {
      case "deleteMachine":
        return deleteMachine(name);
      case "deletePool": {
        const body = { propagationPolicy: random.pick(["Background", "Foreground"]) };
        await send({ method: "DELETE", path: `${poolsPath}/${name}`, body });
        return;
      }
      default: {
        const answer = await patch(name, changeOf(what, random));
        // Whoever finds it gone makes it anew.
        if (answer?.status === 404) await create(name);
      }
    }
  };
  const insist = async (attempt: () => Promise<boolean>) => {
    while (!(await attempt())) await sleep(RETRY_MS);
  };
  return {
    names,
    figures,
    async createAll() {
      for (const name of names) await insist(async () => [201, 409].includes((await create(name))?.status ?? 0));
    },
    async keepBusy(signal) {
      while (!signal.aborted) {
        const name = random.pick(names) ?? "";
        await act(drawAct(name, random), name);
        await sleep(100 + random.int(600), undefined, { signal }).catch(() => undefined);
      }
    },
    async settle() {
      for (const name of names) {
        await insist(async () => {
          const found = await send({ method: "GET", path: `${poolsPath}/${name}` });
          if (found?.status === 404) await create(name);
          if (found?.status !== 200 || isTerminating(parseObject(found.body))) return false;
          const { spec } = parseObject(found.body);
          const given = isRecord(spec) ? spec["maxUnavailable"] : undefined;
          const maxUnavailable = given === "0%" ? null : given;
          const scaleInStrategy = { ...ONE_OF, proactive: {} };
          const settled = {
            paused: null,
            scaleInStrategy,
            ...guests({ annotations: { [BEHAVIOUR_ANNOTATION]: null } }),
          };
          return (await patch(name, { ...settled, maxUnavailable }))?.status === 200;
        });
      }
    },
  };
}

function drawAct(name: string, random: Random): Act {
  const usual = [...ACT_NAMES, ...MORE_ACT_NAMES].filter((act) => act !== "editDisks" || hasDisks(name));
  // What is broken, or has other disks, comes right by being replaced.
  const known = [
    ...usual.filter((act) => act !== "update" || !(heals(name) || hasDisks(name))),
    ...(heals(name) ? GUEST_ACT_NAMES : []),
  ];
  return random.pick(known.flatMap((act) => Array.from({ length: ACTS[act] }, () => act))) ?? "scale";
}

const heals = (name: string) => name.startsWith("healed");
const hasDisks = (name: string) => name.startsWith("disks");

function drawPool(name: string, random: Random): object {
  return aPool(name, {
    replicas: 1 + random.int(REPLICAS_MAX),
    spec: {
      scaleInStrategy: withoutNulls(random.pick(SCALE_INS)),
      ...(heals(name) || hasDisks(name) ? {} : { updateStrategy: withoutNulls(random.pick(UPDATES)) }),
      ...withoutNulls({ maxUnavailable: random.pick(BUDGETS) }),
      ...(heals(name) ? { autohealing: { startUpFailureThreshold: 1, minFailingToStartDuration: "10s" } } : {}),
    },
    machine: {
      ...(random.chance(0.5) ? {} : { running: undefined, runStrategy: "Always" }),
      ...(hasDisks(name) ? disks("1Gi") : {}),
    },
  });
}

function withoutNulls(object: object = {}): object {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== null));
}

function disks(storage: string) {
  const resources = { requests: { storage } };
  const spec = { storage: { resources }, source: { blank: {} } };
  return { dataVolumeTemplates: [{ metadata: { name: "disk" }, spec }] };
}

function guests(metadata: object) {
  return { virtualMachineTemplate: { spec: { template: { metadata } } } };
}

/** In a merge patch of the pool's spec. */
function changeOf(act: Exclude<Act, "deleteMachine" | "deletePool">, random: Random): object {
  switch (act) {
    case "scale":
      return { replicas: random.chance(0.1) ? 0 : 1 + random.int(REPLICAS_MAX) };
    case "label":
      return { virtualMachineTemplate: { metadata: { annotations: { edited: random.uuid() } } } };
    case "editGuest":
      return guests({ annotations: { edited: random.uuid() } });
    case "editDisks":
      return { virtualMachineTemplate: { spec: disks(random.pick(["1Gi", "2Gi"]) ?? "1Gi") } };
    case "pause":
      return { paused: true };
    case "resume":
      return { paused: null };
    case "scaleIn":
      return { scaleInStrategy: random.pick(SCALE_INS) };
    case "update":
      return { updateStrategy: random.pick(UPDATES) };
    case "budget":
      return { maxUnavailable: random.pick(BUDGETS) };
    case "break":
      return { maxUnavailable: "0%" };
    case "repair":
      return { maxUnavailable: null };
    case "breakGuests":
      return guests({ annotations: { [BEHAVIOUR_ANNOTATION]: random.pick(["crash-loop", "never-ready"]) } });
    case "mendGuests":
      return guests({ annotations: { [BEHAVIOUR_ANNOTATION]: null } });
  }
}
