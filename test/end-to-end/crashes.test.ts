/** The functions' process is ended by SIGKILL around every kind of write that a pass makes, and started again. */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensurePki, type Pki } from "../../infra/local/control-plane/certificates.ts";
import { writeKubeconfig } from "../../infra/local/control-plane/kubeconfig.ts";
import { isRecord } from "../../shared/planning/json.ts";
import { type CrashPoint, type CrashProxy, type ProxyRequest, startCrashProxy } from "../support/crash-proxy.ts";
import { eventually } from "../support/eventually.ts";
import { type FunctionsProcess, startFunctionsProcess } from "../support/functions-process.ts";
import { controllerUidOf, machineNames } from "../support/objects.ts";
import { aPool, POOL_LABEL } from "../support/pool-manifests.ts";
import { existingMax, liveMin, type Recording, recordMachines } from "../support/recording.ts";
import { untilMachines, untilSettled } from "../support/until.ts";
import { type Finishing, type Namespace, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "pool";
const POOL_FINALIZER = "pool.kubevirt.io/finalizer";

let world: World;
let pki: Pki;
/** Of a ServiceAccount that may do what the functions may. */
let token: string;

beforeAll(async () => {
  world = await startWorld({ functions: false });
  pki = await ensurePki(world.dir);
  const account = "default:functions";
  await world.kubectl("create", "serviceaccount", "functions");
  for (const role of ["vmpool-functions", "vmpool-functions-cluster"]) {
    const name = `functions-${role}`;
    await world.kubectl("create", "clusterrolebinding", name, `--clusterrole=${role}`, `--serviceaccount=${account}`);
  }
  token = (await world.kubectl("create", "token", "functions", "--duration=2h")).trim();
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

const isPool = ({ path }: ProxyRequest) => /\/virtualmachinepools\/[^/]+$/.test(path);
const isMachine = ({ path }: ProxyRequest) => /\/virtualmachines\/[^/]+$/.test(path);
const metadataOf = ({ body }: ProxyRequest): Readonly<Record<string, unknown>> => {
  const metadata = isRecord(body) ? body["metadata"] : undefined;
  return isRecord(metadata) ? metadata : {};
};

/** How to tell each kind of write from all others. */
const WRITES = {
  "writing the claim": (request) => request.method === "PATCH" && isPool(request) && Array.isArray(request.body),
  "creating the revision": ({ method, path }) => method === "POST" && path.endsWith("/controllerrevisions"),
  "trying a machine": ({ method, path, isDry }) => method === "POST" && path.endsWith("/virtualmachines") && isDry,
  "creating a machine": ({ method, path, isDry }) => method === "POST" && path.endsWith("/virtualmachines") && !isDry,
  "creating an event": ({ method, path }) => method === "POST" && path.endsWith("/events"),
  "writing the status": ({ method, path }) => method === "PATCH" && path.endsWith("/status"),
  "deleting a machine": (request) => request.method === "DELETE" && isMachine(request),
  "dropping a machine's finalizer": (request) =>
    request.method === "PATCH" &&
    isMachine(request) &&
    "finalizers" in metadataOf(request) &&
    !("ownerReferences" in metadataOf(request)),
  "releasing a machine": (request) =>
    request.method === "PATCH" && isMachine(request) && "ownerReferences" in metadataOf(request),
  "revoking a delete": (request) =>
    request.method === "PATCH" && isMachine(request) && "annotations" in metadataOf(request),
  "dropping the pool's finalizer": (request) =>
    request.method === "PATCH" && isPool(request) && "finalizers" in metadataOf(request),
} as const satisfies Readonly<Record<string, CrashPoint["matches"]>>;

interface Case {
  readonly write: keyof typeof WRITES;
  readonly nth: number;
  readonly when: CrashPoint["when"];
}

/** Each write, with the process ended before the server gets it and after the server has done it. */
function around(...writes: readonly (readonly [write: Case["write"], nth: number])[]): readonly Case[] {
  return writes.flatMap(([write, nth]) => (["before", "after"] as const).map((when) => ({ write, nth, when })));
}

interface Stage {
  readonly namespace: Namespace;
  readonly recording: Recording;
  /** Starts the functions, which run until the crash or the end of the test. */
  start(): Promise<void>;
  /** To be called before what leads to the write; settles when the functions are dead. */
  crashAt(point: Case): Promise<void>;
}

/** A namespace that the functions have for themselves, behind a proxy. */
async function aStage(test: Finishing): Promise<Stage> {
  // It stays: when its functions are dead, nobody lets its machines go.
  const namespace = await world.aNamespace();
  const { server: upstream, certificateAuthorityData } = world.access;
  const proxy: CrashProxy = await startCrashProxy({
    upstream,
    ca: pki.ca,
    serving: pki.serving,
    namespace: namespace.name,
  });
  const recording = await recordMachines({
    connection: world.connection,
    namespace: namespace.name,
    counts: (machine) => controllerUidOf(machine) !== undefined,
  });
  const dir = join(world.dir, namespace.name);
  const kubeconfig = join(world.dir, `${namespace.name}.kubeconfig`);
  const access = { server: proxy.server, auth: { kind: "token", token }, mode: "act" } as const;
  await writeKubeconfig(
    kubeconfig,
    { ...access, ...(certificateAuthorityData === undefined ? {} : { certificateAuthorityData }) },
    "functions",
  );
  let running: FunctionsProcess | undefined;
  test.onTestFinished(async () => {
    await running?.kill();
    await Promise.all([proxy.close(), recording.stop()]);
  });
  return {
    namespace,
    recording,
    async start() {
      running = await startFunctionsProcess({ kubeconfig, dir });
    },
    crashAt: ({ write, nth, when }) =>
      proxy.arm({ matches: WRITES[write], nth, when, crash: async () => running?.kill() }),
  };
}

/** A stage whose pool is ready and whose functions run. */
async function aReadyStage(test: Finishing, replicas: number): Promise<Stage> {
  const stage = await aStage(test);
  await stage.namespace.create(aPool(POOL, { replicas }));
  await stage.start();
  await untilMachines(stage.namespace, machineNames(POOL, replicas));
  await expectConverged(stage, replicas);
  await stage.recording.restart();
  return stage;
}

/** Waits until the functions have brought the pool there and have nothing left to do. */
const expectConverged = ({ namespace }: Stage, count: number) =>
  untilSettled(world, { namespace, name: POOL }, { replicas: count, readyReplicas: count });

const scale = ({ namespace }: Stage, replicas: number) =>
  namespace.kubectl("scale", "vmpool", POOL, `--replicas=${replicas}`);

describe.concurrent("a pool of three comes up although the functions die", () => {
  it.for(
    around(
      ["writing the claim", 1],
      ["creating the revision", 1],
      ["trying a machine", 1],
      ["creating a machine", 1],
      ["creating a machine", 2],
      ["creating a machine", 3],
      ["writing the claim", 2],
      ["creating an event", 1],
      ["writing the status", 1],
    ),
  )("$when $write ($nth)", async (point, test) => {
    const stage = await aStage(test);
    const dead = stage.crashAt(point);
    await stage.namespace.create(aPool(POOL, { replicas: 3 }));
    await stage.start();
    await dead;
    await stage.start();
    await untilMachines(stage.namespace, machineNames(POOL, 3));
    await expectConverged(stage, 3);
    expect(existingMax(await stage.recording.states())).toBe(3);
  });
});

describe.concurrent("a pool of four shrinks to two although the functions die", () => {
  it.for(
    around(
      ["writing the claim", 1],
      ["deleting a machine", 1],
      ["deleting a machine", 2],
      ["dropping a machine's finalizer", 1],
      ["writing the claim", 2],
    ),
  )("$when $write ($nth)", async (point, test) => {
    const stage = await aReadyStage(test, 4);
    const dead = stage.crashAt(point);
    await scale(stage, 2);
    await dead;
    await stage.start();
    await eventually(async () => expect(await stage.namespace.machines()).toHaveLength(2));
    await expectConverged(stage, 2);
    const states = await stage.recording.states();
    expect(liveMin(states)).toBe(2);
    expect(existingMax(states)).toBe(4);
  });
});

describe.concurrent("a pool keeps its size although the functions die", () => {
  it.for(around(["releasing a machine", 1]))("$when $write, a machine being relabelled", async (point, test) => {
    const stage = await aReadyStage(test, 2);
    const dead = stage.crashAt(point);
    await stage.namespace.kubectl("label", "vm", "pool-0", `${POOL_LABEL}=mine`, "--overwrite");
    await dead;
    await stage.start();
    await untilMachines(stage.namespace, machineNames(POOL, 3));
    await expectConverged(stage, 2);
    expect(existingMax(await stage.recording.states())).toBe(2);
    const released = await stage.namespace.machine("pool-0");
    expect(released?.metadata).toMatchObject({ ownerReferences: [], labels: { [POOL_LABEL]: "mine" } });
    expect(released?.metadata.finalizers).not.toContain(POOL_FINALIZER);
  });

  it.for(around(["dropping a machine's finalizer", 1]))(
    "$when $write, a machine being detached",
    async (point, test) => {
      const stage = await aReadyStage(test, 2);
      const dead = stage.crashAt(point);
      await stage.namespace.kubectl(
        "patch",
        "vm",
        "pool-0",
        "--type=merge",
        "--patch",
        '{"metadata":{"ownerReferences":null}}',
      );
      await dead;
      await stage.start();
      await untilMachines(stage.namespace, machineNames(POOL, 3));
      await expectConverged(stage, 2);
      expect(existingMax(await stage.recording.states())).toBe(2);
      expect((await stage.namespace.machine("pool-0"))?.metadata.finalizers).not.toContain(POOL_FINALIZER);
    },
  );

  it.for(around(["revoking a delete", 1]))(
    "$when $write, having died before a delete that is no longer wanted",
    async (point, test) => {
      const stage = await aReadyStage(test, 4);
      const uids = (await stage.namespace.machines()).map(({ metadata }) => metadata.uid);
      const deadFirst = stage.crashAt({ write: "deleting a machine", nth: 1, when: "before" });
      await scale(stage, 3);
      await deadFirst;
      await scale(stage, 4);
      const dead = stage.crashAt(point);
      await stage.start();
      await dead;
      await stage.start();
      await expectConverged(stage, 4);
      expect((await stage.namespace.machines()).map(({ metadata }) => metadata.uid)).toEqual(uids);
    },
  );
});

describe.concurrent("a pool goes with its machines although the functions die", () => {
  it.for(around(["dropping a machine's finalizer", 1], ["dropping the pool's finalizer", 1]))(
    "$when $write ($nth)",
    async (point, test) => {
      const stage = await aReadyStage(test, 2);
      const dead = stage.crashAt(point);
      await stage.namespace.kubectl("delete", "vmpool", POOL, "--wait=false");
      await dead;
      await stage.start();
      await eventually(async () => expect(await stage.namespace.pool(POOL)).toBeUndefined());
      await untilMachines(stage.namespace, []);
      expect(existingMax(await stage.recording.states())).toBe(2);
    },
  );
});
