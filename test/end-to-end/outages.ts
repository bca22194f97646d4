/**
 * Pools that people change all the time on a real control plane whose servers, credentials and functions fail one after the other by
 * a seeded schedule, judged all the way; then the faults end, and everything has to come to rest as it should be.
 */
import { readdirSync, readlinkSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { generate } from "selfsigned";
import * as z from "zod";
import { ensurePki, type KeyPair, type Pki } from "../../infra/local/control-plane/certificates.ts";
import { writeAtomically } from "../../infra/local/control-plane/files.ts";
import { accessFor, writeKubeconfig } from "../../infra/local/control-plane/kubeconfig.ts";
import type { ServerAccess } from "../../shared/clusters/access.ts";
import { type ApiResponse, openConnection } from "../../shared/clusters/connection.ts";
import { OWN_GROUP } from "../../shared/events/changes.ts";
import { parseJson } from "../../shared/planning/json.ts";
import { createRandom, type Random, seedOf } from "../simulation/random.ts";
import { type TakenPlane, takeOverPlane } from "../support/breakable-plane.ts";
import { type Etcd, openEtcd } from "../support/etcd.ts";
import { type FunctionsProcess, startFunctionsProcess } from "../support/functions-process.ts";
import { mismatchesOf } from "../support/outage-end.ts";
import { createOutageJudge, type JudgedKind, type OutageJudge } from "../support/outage-judge.ts";
import { createUsers, type Users } from "../support/outage-users.ts";
import { processesWith } from "../support/processes.ts";
import { type Namespace, startWorld, type World } from "../support/world.ts";

const SERVER_FAULTS = [
  ...(["apiServerKilled", "apiServerHangs", "etcdHangs"] as const),
  ...(["etcdKilled", "etcdFull", "servingCertificateExpired"] as const),
] as const;
const FUNCTIONS_FAULTS = [
  ...(["functionsKilled", "functionsHang", "functionsDoubled"] as const),
  ...(["certificateExpired", "tokenRevoked"] as const),
] as const;
export type Fault = (typeof SERVER_FAULTS)[number] | (typeof FUNCTIONS_FAULTS)[number];

const DAY_MS = 24 * 60 * 60_000;
/** Etcd begins to be full this much above what it holds. */
const ROOM_BYTES = 8 * 1024 * 1024;
/** The longest that a server hangs: its work on a request goes on for so much longer than the functions wait for it. */
const HANG_MS = { least: 2_000, most: 14_000 } as const;
const HOLD_MS = { least: 2_000, most: 8_000 } as const;
const PAUSE_MS = { least: 2_000, most: 9_000 } as const;
/** How long a certificate is good that is about to expire; functions have to start with it. */
const SHORT_LIFE_MS = 15_000;
const RESYNC_SECONDS = 2;
const RESTART_PAUSE_MS = 500;
const POLL_MS = 500;
const REQUEST_TIMEOUT_MS = 10_000;
/** Bounds for what hangs, nothing that is measured. */
const READY_TIMEOUT_MS = 180_000;
/** The garbage collector of kube-controller-manager may wait up to 1,000 s before it tries an object again. */
const REST_TIMEOUT_MS = 20 * 60_000;
/** Everything that was sent or scheduled has come by then. */
const STILL_MS = 8_000;
/** Once a renewed credential is not taken up within this, something is wrong. */
const RENEWAL_TIMEOUT_MS = 150_000;
/** One pool of connections to one server. */
const SOCKETS_MORE_MAX = 32;
/** What the functions log when something happens that should not, whatever their cluster does. */
const BUGS = new Set(["pass failed", "function failed", "resync failed", "dead letter", "message is not a wake-up"]);

export interface OutageOptions {
  readonly seed: number;
  /** How long faults happen. */
  readonly durationMs: number;
  readonly pools: number;
  /** How often it is waited until renewed credentials are taken up, which takes a minute; else the next start may take them up. */
  readonly patience: number;
  readonly onProgress: (line: string) => void;
  /** Ends everything early; what is then thrown is its reason. */
  readonly signal: AbortSignal;
}

export interface OutageReport {
  /** Empty when all went well. */
  readonly violations: readonly string[];
  readonly figures: readonly (readonly [what: string, value: string])[];
  /** What happened, line by line, for whoever looks for the reason of a violation. */
  readonly story: readonly string[];
}

interface Run extends OutageOptions {
  readonly world: World;
  readonly namespace: Namespace;
  readonly plane: TakenPlane;
  readonly etcd: Etcd;
  readonly pki: Pki;
  readonly judge: OutageJudge;
  readonly users: Users;
  readonly functions: Functions;
  readonly counts: Map<Fault, number>;
  readonly tell: (line: string) => void;
}

/** Starts a control plane of its own, and leaves nothing behind. */
export async function runOutages(options: OutageOptions): Promise<OutageReport> {
  const startedAt = performance.now();
  const story: string[] = [];
  const tell = (line: string) => {
    const seconds = ((performance.now() - startedAt) / 1_000).toFixed(1).padStart(6);
    story.push(`${seconds} s  ${line}`);
    options.onProgress(`${seconds} s  ${line}`);
  };
  tell("starting a control plane");
  const world = await startWorld({ functions: false });
  const figures: (readonly [string, string])[] = [];
  const violations: string[] = [];
  try {
    violations.push(...(await runOn(world, { ...options, tell, figures })));
  } finally {
    await world.stop();
  }
  const left = processesWith(world.dir).map(({ command }) => command.slice(0, 100));
  violations.push(...left.map((command) => `a process is left: ${command}`));
  return { violations, figures, story };
}

interface Telling extends OutageOptions {
  readonly tell: Run["tell"];
  readonly figures: (readonly [string, string])[];
}

async function runOn(world: World, { figures, ...options }: Telling): Promise<readonly string[]> {
  const { seed, pools } = options;
  const pki = await ensurePki(world.dir);
  const plane = await takeOverPlane(world.dir);
  const etcd = openEtcd(plane.etcdUrl, pki);
  const recording = new AbortController();
  const cleanups = [() => plane.stop(), () => etcd.close()];
  try {
    await untilServing(world);
    const namespace = await world.aNamespace();
    const judge = createOutageJudge();
    const recorded = record(etcd, { judge, signal: recording.signal });
    cleanups.push(async () => {
      recording.abort();
      await recorded;
    });
    const users = createUsers({
      ...{ connection: world.connection, namespace: namespace.name, pools },
      random: createRandom(seedOf(seed, 1)),
      onDelete: judge.userDeletes,
    });
    const functions = await keepFunctions(world);
    cleanups.push(functions.stop);
    const run: Run = {
      ...{ ...options, world, namespace, plane, etcd, pki, judge, users, functions },
      counts: new Map(),
    };
    return await Promise.race([live(run, figures), rejectionOf(options.signal)]).catch((error: unknown) => {
      options.signal.throwIfAborted();
      return [...judge.violations, `the run itself failed: ${String(error)}`];
    });
  } finally {
    for (const cleanup of cleanups.toReversed()) await cleanup();
  }
}

/** From pools that come up, through all faults, to rest; what was wrong. */
async function live(run: Run, figures: Telling["figures"]): Promise<readonly string[]> {
  const { users, functions, judge, tell, pools } = run;
  tell(`${pools} pools come up`);
  await users.createAll();
  await users.settle();
  const early = await untilRest(run);
  if (early.length > 0) return early;
  const before = descriptorsOf(functions.pid());
  const last = await sufferFaults(run);
  tell("the faults are over");
  await restartControllerManager(run.plane);
  await users.settle();
  const violations = [...(await untilRest(run)), ...judge.violations];
  const restMs = performance.now() - last;
  const after = descriptorsOf(functions.pid());
  if (after.sockets > before.sockets + SOCKETS_MORE_MAX)
    violations.push(`the functions have ${after.sockets} sockets at rest, and had ${before.sockets}`);
  const log = await readLog(functions.logPath);
  violations.push(...log.bugs);
  figures.push(...figuresOf(run, { log, restMs, before, after }));
  return violations;
}

/**
 * A kube-controller-manager that takes part in an election ends when the API server is away for longer than its lease, and
 * its successor reads everything. The local one is alone: after a look that found some kinds not served it has forgotten
 * them, and does not hear of owners that were deleted meanwhile.
 */
async function restartControllerManager({ controllerManager }: Run["plane"]): Promise<void> {
  await controllerManager.kill();
  await controllerManager.start();
}

function rejectionOf(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

const PREFIXES: Readonly<Record<JudgedKind, string>> = {
  pool: "/registry/pool.kubevirt.io/virtualmachinepools/",
  machine: "/registry/kubevirt.io/virtualmachines/",
};
const KINDS = ["pool", "machine"] as const;

/** Hands every change of pools and machines to the judge, in the order in which they were stored. */
function record(etcd: Etcd, { judge, signal }: { readonly judge: OutageJudge; readonly signal: AbortSignal }) {
  const keys = { from: PREFIXES.machine, to: `${PREFIXES.pool.slice(0, -1)}0` };
  return etcd.follow(keys, {
    signal,
    onChange({ key, revision, value }) {
      const kind = KINDS.find((one) => key.startsWith(PREFIXES[one]));
      if (kind === undefined) return;
      judge.take({ kind, place: key.slice(PREFIXES[kind].length), revision, value, atMs: performance.now() });
    },
  });
}

/** Some of what `/readyz` asks for may fail for good after an outage that a server has come through. */
const SERVED_PATH = "/apis/pool.kubevirt.io/v1beta1/namespaces/default/virtualmachinepools";

/** Throws what it said last when it does not come to serve. */
async function untilServing({ connection, access }: World): Promise<void> {
  const giveUpAt = performance.now() + READY_TIMEOUT_MS;
  let said = "nothing";
  while (performance.now() < giveUpAt) {
    const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
    const sent = connection.send({ method: "GET", path: SERVED_PATH, signal });
    const { status, body } = await sent.catch((error: unknown) => ({ status: 0, body: String(error) }));
    if (status === 200) return;
    said = String(body);
    await sleep(POLL_MS);
  }
  const { status } = await onNewConnection(access).catch(() => ({ status: "nothing" }));
  throw new Error(`the API server does not come to serve: it said last ${said}, and ${status} on a new connection`);
}

async function onNewConnection(access: ServerAccess): Promise<ApiResponse> {
  const connection = openConnection(access);
  try {
    return await connection.send({ method: "GET", path: SERVED_PATH, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
  } finally {
    await connection.close();
  }
}

/** Until all pools are as they should be, a look finds nothing to do, and nothing happens any more; what is wrong when that never comes. */
async function untilRest({ namespace, users, world, judge }: Run): Promise<string[]> {
  const giveUpAt = performance.now() + REST_TIMEOUT_MS;
  let wrong: readonly string[] = ["nobody has looked"];
  while (performance.now() < giveUpAt) {
    wrong = await mismatchesOf(namespace, users.names).catch((error: unknown) => [String(error)]);
    if (wrong.length === 0) wrong = await decisionsOf({ namespace, users, world });
    if (wrong.length === 0) {
      const lookedAt = performance.now();
      await sleep(STILL_MS);
      wrong = await mismatchesOf(namespace, users.names).catch((error: unknown) => [String(error)]);
      if (wrong.length === 0 && judge.actedAtMs < lookedAt) return [];
    }
    await sleep(POLL_MS);
  }
  return wrong.length === 0
    ? ["the functions go on writing though everything matches"]
    : wrong.map((one) => `at the end ${one}`);
}

/** What a wide look at each pool would do. */
async function decisionsOf({ namespace, users, world }: Pick<Run, "namespace" | "users" | "world">): Promise<string[]> {
  const wrong: string[] = [];
  for (const name of users.names) {
    const { result } = await world.runPass({ namespace: namespace.name, name }, { wide: true, observe: true });
    const { outcome, decisions, statusChanged } = result;
    if (outcome !== "reconciled" || statusChanged || decisions.length > 0)
      wrong.push(`${name}: a look ends ${outcome}, decides ${JSON.stringify(decisions)}`);
  }
  return wrong;
}

/** Both kinds of faults, each one after the other; when the last was over. */
async function sufferFaults(run: Run): Promise<number> {
  const { durationMs, seed, users } = run;
  const over = AbortSignal.timeout(durationMs);
  await Promise.all([
    users.keepBusy(over),
    inTurn(run, { faults: SERVER_FAULTS, random: createRandom(seedOf(seed, 2)), over, suffer: sufferServer }),
    inTurn(run, { faults: FUNCTIONS_FAULTS, random: createRandom(seedOf(seed, 3)), over, suffer: sufferFunctions }),
  ]);
  return performance.now();
}

interface Turns<F extends Fault> {
  readonly faults: readonly F[];
  readonly random: Random;
  readonly over: AbortSignal;
  readonly suffer: (fault: F, run: Run, random: Random) => Promise<void>;
}

/** Each fault once, in some order, and again in another. */
async function inTurn<F extends Fault>(run: Run, { faults, random, over, suffer }: Turns<F>): Promise<void> {
  let waiting: F[] = [];
  while (!over.aborted) {
    if (waiting.length === 0) waiting = shuffled(faults, random);
    const fault = waiting.shift();
    if (fault === undefined) return;
    await sleep(between(PAUSE_MS, random), undefined, { signal: over }).catch(() => undefined);
    if (over.aborted) return;
    run.counts.set(fault, (run.counts.get(fault) ?? 0) + 1);
    await suffer(fault, run, random);
  }
}

function shuffled<T>(list: readonly T[], random: Random): T[] {
  return list
    .map((entry) => ({ entry, key: random.int(2 ** 30) }))
    .sort((a, b) => a.key - b.key)
    .map(({ entry }) => entry);
}

function between({ least, most }: { readonly least: number; readonly most: number }, random: Random): number {
  return least + random.int(most - least);
}

/** Ends with the servers as they were, and serving. */
async function sufferServer(fault: (typeof SERVER_FAULTS)[number], run: Run, random: Random): Promise<void> {
  const { plane, tell, world } = run;
  const hangMs = between(HANG_MS, random);
  const holdMs = between(HOLD_MS, random);
  switch (fault) {
    case "apiServerKilled":
      tell(`the API server is killed, for ${holdMs} ms`);
      await plane.apiServer.kill();
      await sleep(holdMs);
      await plane.apiServer.start();
      break;
    case "apiServerHangs":
      tell(`the API server hangs for ${hangMs} ms`);
      await plane.apiServer.hang(hangMs);
      break;
    case "etcdHangs":
      tell(`etcd hangs for ${hangMs} ms`);
      await plane.etcd.hang(hangMs);
      break;
    case "etcdKilled":
      tell(`etcd is killed, for ${holdMs} ms`);
      await plane.etcd.kill();
      await sleep(holdMs);
      await plane.etcd.start();
      break;
    case "etcdFull":
      await fillEtcd(run, holdMs);
      break;
    case "servingCertificateExpired":
      await letServingExpire(run, holdMs);
      break;
  }
  await untilServing(world);
  tell(`the cluster serves again after ${fault}`);
}

/** With a quota that is soon used up; then an administrator makes room, and it starts again without. */
async function fillEtcd({ plane, etcd, world, tell }: Run, holdMs: number): Promise<void> {
  await plane.etcd.kill();
  const used = await sizeOf(join(world.dir, "data", "member", "snap", "db"));
  await plane.etcd.start([`--quota-backend-bytes=${used + ROOM_BYTES}`]);
  await untilServing(world);
  await insist(() => etcd.fill());
  tell(`etcd is full, for ${holdMs} ms`);
  await sleep(holdMs);
  await insist(() => etcd.makeRoom());
  await plane.etcd.kill();
  await plane.etcd.start();
}

async function sizeOf(path: string): Promise<number> {
  return (await readFile(path)).length;
}

async function insist(attempt: () => Promise<void>): Promise<void> {
  const deadline = AbortSignal.timeout(READY_TIMEOUT_MS);
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (deadline.aborted) throw error;
      await sleep(POLL_MS);
    }
  }
}

/** The server starts with a certificate that was good until a minute ago, and finds the good one in its place later. */
async function letServingExpire({ plane, pki, tell, world }: Run, holdMs: number): Promise<void> {
  const { serving } = pki;
  const until = Date.now() - 60_000;
  await putPair(serving, await issue(pki, { commonName: "kube-apiserver", until, serves: true }));
  await plane.apiServer.kill();
  await plane.apiServer.start();
  tell(`the API server's certificate has expired, for ${holdMs} ms`);
  await sleep(holdMs);
  await putPair(serving, serving);
  await untilServing(world);
}

/** The key goes first, as where they were issued. */
async function putPair(
  { certificatePath, keyPath }: KeyPair,
  { certificate, key }: Pick<KeyPair, "certificate" | "key">,
) {
  await writeAtomically(keyPath, key, 0o600);
  await writeAtomically(certificatePath, certificate, 0o644);
}

interface Issue {
  readonly commonName: string;
  /** Epoch milliseconds. */
  readonly until: number;
  readonly serves: boolean;
}

async function issue({ ca }: Pki, { commonName, until, serves }: Issue) {
  const issued = await generate(
    [
      { name: "organizationName", value: commonName },
      { name: "commonName", value: commonName },
    ],
    {
      notBeforeDate: new Date(until - DAY_MS),
      notAfterDate: new Date(until),
      keyType: "ec",
      algorithm: "sha256",
      ca: { key: ca.key, cert: ca.certificate },
      extensions: [
        { name: "basicConstraints", cA: false, critical: true },
        { name: "keyUsage", digitalSignature: true, critical: true },
        { name: "extKeyUsage", serverAuth: serves, clientAuth: !serves },
        { name: "subjectAltName", altNames: [{ type: 7, ip: "127.0.0.1" }] },
      ],
    },
  );
  return { certificate: issued.cert, key: issued.private };
}

/** Ends with functions that run, or are being started, with credentials that are good. */
async function sufferFunctions(fault: (typeof FUNCTIONS_FAULTS)[number], run: Run, random: Random): Promise<void> {
  const { functions, tell } = run;
  const hangMs = between(HANG_MS, random);
  const holdMs = between(HOLD_MS, random);
  switch (fault) {
    case "functionsKilled":
      tell("the functions are killed");
      return functions.kill();
    case "functionsHang":
      tell(`the functions hang for ${hangMs} ms`);
      return functions.hang(hangMs);
    case "functionsDoubled":
      tell(`the functions run twice, for ${holdMs} ms`);
      return functions.double(holdMs);
    case "certificateExpired": {
      const { server } = run.world.functionsAccess;
      const pair = await issue(run.pki, { commonName: OWN_GROUP, until: Date.now() + SHORT_LIFE_MS, serves: false });
      await functions.startWith(accessFor(server, run.pki.ca, { ...run.pki.functions, ...pair }));
      await sleep(SHORT_LIFE_MS);
      tell(`the functions' certificate has expired, for ${holdMs} ms`);
      break;
    }
    case "tokenRevoked": {
      const { auth: _auth, ...access } = run.world.functionsAccess;
      const { token, revoke } = await issueToken(run);
      await functions.startWith({ ...access, auth: { kind: "token", token } });
      await sleep(holdMs);
      await revoke();
      tell(`the functions' token is revoked, for ${holdMs} ms`);
      break;
    }
  }
  await sleep(holdMs);
  await functions.renew(run.world.functionsAccess);
  if (!random.chance(run.patience)) return;
  const renewedAt = Date.now();
  const giveUpAt = renewedAt + RENEWAL_TIMEOUT_MS;
  while (!(await hasWorkedSince(functions.logPath, renewedAt)) && Date.now() < giveUpAt) await sleep(POLL_MS);
  const seconds = ((Date.now() - renewedAt) / 1_000).toFixed(0);
  tell(`the functions work again, ${seconds} s after their credentials were renewed`);
}

const TOKEN_ACCOUNT = "functions";

/** Of a service account, bound to a secret: the token is good as long as the secret exists. */
async function issueToken({ world }: Run) {
  const name = `bound-${Date.now()}`;
  const insistOn = async (...args: readonly string[]): Promise<string> => {
    for (;;) {
      const { ok, stdout, stderr } = await world.tryKubectl(args);
      if (ok || /already ?exists|not ?found/i.test(stderr)) return stdout.trim();
      await sleep(POLL_MS);
    }
  };
  await insistOn("create", "serviceaccount", TOKEN_ACCOUNT);
  const account = `--serviceaccount=default:${TOKEN_ACCOUNT}`;
  for (const role of ["vmpool-functions", "vmpool-functions-cluster"])
    await insistOn("create", "clusterrolebinding", `${TOKEN_ACCOUNT}-${role}`, `--clusterrole=${role}`, account);
  await insistOn("create", "secret", "generic", name);
  const bound = [`--bound-object-kind=Secret`, `--bound-object-name=${name}`, "--duration=2h"];
  const token = await insistOn("create", "token", TOKEN_ACCOUNT, ...bound);
  return { token, revoke: () => insistOn("delete", "secret", name) };
}

/** The functions' process, started again whenever it ends, as whoever runs it would. */
interface Functions {
  readonly logPath: string;
  readonly starts: number;
  pid(): number | undefined;
  kill(): Promise<void>;
  hang(ms: number): Promise<void>;
  /** Another one beside it, for so long. */
  double(ms: number): Promise<void>;
  /** A process that has these credentials from its start. */
  startWith(access: ServerAccess): Promise<void>;
  /** Whoever looks finds these credentials. */
  renew(access: ServerAccess): Promise<void>;
  stop(): Promise<void>;
}

const registrySchema = z.object({ clusters: z.object({ local: z.looseObject({}) }) });

async function keepFunctions({ dir, functionsAccess }: World): Promise<Functions> {
  const own = join(dir, "functions");
  const kubeconfig = join(dir, "functions.kubeconfig");
  const common = { kubeconfig, resyncSeconds: RESYNC_SECONDS, quiet: true };
  let running: FunctionsProcess | undefined;
  let isWanted = true;
  let starts = 0;
  const keep = async () => {
    while (isWanted) {
      running = await startFunctionsProcess({ ...common, dir: own });
      starts += 1;
      await running.exited;
      await sleep(RESTART_PAUSE_MS);
    }
  };
  await writeKubeconfig(kubeconfig, functionsAccess, "functions");
  const kept = keep();
  const signal = (name: NodeJS.Signals) => {
    if (running?.pid !== undefined) process.kill(running.pid, name);
  };
  const kill = async () => running?.kill();
  return {
    logPath: join(own, "logs", "functions.log"),
    get starts() {
      return starts;
    },
    pid: () => running?.pid,
    kill,
    async hang(ms) {
      const hanging = running;
      signal("SIGSTOP");
      await sleep(ms);
      if (running === hanging) signal("SIGCONT");
    },
    async double(ms) {
      const second = await startFunctionsProcess({ ...common, dir: join(dir, "functions-second") });
      await sleep(ms);
      await second.kill();
    },
    async startWith(access) {
      await writeKubeconfig(kubeconfig, access, "functions");
      await kill();
    },
    async renew(access) {
      await writeKubeconfig(kubeconfig, access, "functions");
      const path = join(own, "registry.json");
      const registry = registrySchema.parse(parseJson(await readFile(path, "utf8")));
      const renewed = { clusters: { local: { ...registry.clusters.local, access } } };
      await writeFile(path, `${JSON.stringify(renewed, null, 2)}\n`, { mode: 0o600 });
    },
    async stop() {
      isWanted = false;
      await kill();
      await kept;
    },
  };
}

const logLineSchema = z.looseObject({
  time: z.iso.datetime(),
  level: z.string(),
  message: z.string(),
  requests: z.int().optional(),
  writes: z.int().optional(),
});
type LogLine = z.infer<typeof logLineSchema>;

async function linesOf(path: string): Promise<readonly LogLine[]> {
  const text = await readFile(path, "utf8").catch(() => "");
  return text.split("\n").flatMap((line) => {
    // A process that was killed leaves half a line.
    const parsed = logLineSchema.safeParse(parseJson(line));
    return parsed.success ? [parsed.data] : [];
  });
}

async function hasWorkedSince(path: string, time: number): Promise<boolean> {
  return (await linesOf(path)).some((line) => line.message === "pass decided" && Date.parse(line.time) > time);
}

interface Log {
  readonly bugs: readonly string[];
  readonly byMessage: ReadonlyMap<string, number>;
  readonly requests: number;
  readonly writes: number;
}

async function readLog(path: string): Promise<Log> {
  const lines = await linesOf(path);
  const byMessage = new Map<string, number>();
  for (const { message } of lines) byMessage.set(message, (byMessage.get(message) ?? 0) + 1);
  const sum = (field: "requests" | "writes") => lines.reduce((total, line) => total + (line[field] ?? 0), 0);
  const bugs = lines.filter(({ message }) => BUGS.has(message)).map((line) => `logged: ${JSON.stringify(line)}`);
  return { bugs, byMessage, requests: sum("requests"), writes: sum("writes") };
}

interface Descriptors {
  readonly all: number;
  readonly sockets: number;
}

/** What a process has open; nothing where that cannot be read. */
function descriptorsOf(pid: number | undefined): Descriptors {
  const dir = `/proc/${pid}/fd`;
  try {
    const targets = readdirSync(dir).map((entry) => targetOf(join(dir, entry)));
    return { all: targets.length, sockets: targets.filter((target) => target.startsWith("socket:")).length };
  } catch {
    return { all: 0, sockets: 0 };
  }
}

/** It may be closed by now. */
function targetOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

interface Measured {
  readonly log: Log;
  readonly restMs: number;
  readonly before: Descriptors;
  readonly after: Descriptors;
}

function figuresOf({ counts, users, judge, functions }: Run, { log, restMs, before, after }: Measured) {
  const { created, deleted, replaced, deletedByUsers, claims } = judge.counts;
  const passes = ["pass decided", "pass had failures", "pool cannot be read", "pool is illegal and held"];
  const figures: (readonly [string, string])[] = [
    ...[...counts].map(([fault, count]) => [`fault ${fault}`, String(count)] as const),
    ["faults in all", String([...counts.values()].reduce((sum, count) => sum + count, 0))],
    ["changes that users asked for, and that were taken", `${users.figures.asked}, ${users.figures.taken}`],
    ["machines created by the functions", String(created)],
    ["machines deleted by the functions: too many, replaced", `${deleted}, ${replaced}`],
    ["machines deleted by users", String(deletedByUsers)],
    ["claims written", String(claims)],
    ...passes.map((message) => [`passes logged as "${message}"`, String(log.byMessage.get(message) ?? 0)] as const),
    ["lists of pools that could not be read", String(log.byMessage.get("cluster cannot be read") ?? 0)],
    ["requests and writes of the passes that were logged", `${log.requests}, ${log.writes}`],
    ["starts of the functions", String(functions.starts)],
    ["from the last fault until all was at rest", `${(restMs / 1_000).toFixed(1)} s`],
    ["open files of the functions at rest, before and after", `${before.all}, ${after.all}`],
    ["of these, sockets", `${before.sockets}, ${after.sockets}`],
  ];
  return figures;
}
