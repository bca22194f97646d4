import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Connection, openConnection } from "../../shared/clusters/connection.ts";
import { at, CLUSTER_TIMEOUT_MS, standInFor, startCluster, TEST_TIMEOUT_MS, type TestCluster } from "./cluster.ts";
import { aMachine, pathsOf, untilGone, untilPrintable, untilReadyWithout } from "./machines.ts";

let dir: string;
let cluster: TestCluster;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "stand-in-"));
  cluster = await startCluster(dir);
}, CLUSTER_TIMEOUT_MS);

afterAll(async () => {
  await cluster.stop();
  await rm(dir, { recursive: true, force: true });
}, TEST_TIMEOUT_MS);

const create = (name: string) => cluster.apply(aMachine({ namespace: "default", name, disks: [`${name}-disk`] }));

/** A connection that goes to whichever server it was last led to, as a load balancer's address does. */
function followingConnection(first: Connection) {
  let current = first;
  const connection: Connection = {
    send: (request) => current.send(request),
    watch: (path, signal) => current.watch(path, signal),
    close: () => current.close(),
  };
  return {
    connection,
    leadTo: async (next: Connection) => {
      const previous = current;
      current = next;
      await previous.close();
    },
  };
}

it("goes on after the API server was away", { timeout: TEST_TIMEOUT_MS }, async () => {
  const door = followingConnection(openConnection(cluster.access));
  const standIn = await standInFor(door.connection);
  const old = pathsOf("default", "old");
  await create("old");
  const first = await untilReadyWithout(cluster, old, "");

  await cluster.stop();
  cluster = await startCluster(dir);
  await door.leadTo(openConnection(cluster.access));

  await create("young");
  await untilReadyWithout(cluster, pathsOf("default", "young"), "");
  expect(at(await cluster.read(old.instance), "metadata.uid")).toBe(first);
  await cluster.remove(old.instance);
  await untilReadyWithout(cluster, old, first);
  await standIn.stop();
  await door.connection.close();
});

it("takes up what happened while it was away itself", { timeout: TEST_TIMEOUT_MS }, async () => {
  const [kept, halted, deleted, young] = ["kept", "halted", "deleted", "unseen"].map((name) =>
    pathsOf("default", name),
  );
  if (!kept || !halted || !deleted || !young) throw new Error("four machines");
  const before = await standInFor(cluster.connection);
  await Promise.all(["kept", "halted", "deleted"].map(create));
  const uid = await untilReadyWithout(cluster, kept, "");
  for (const machine of [halted, deleted]) await untilReadyWithout(cluster, machine, "");
  await before.stop();

  await cluster.mergePatch(halted.machine, { spec: { runStrategy: "Halted" } });
  await cluster.remove(deleted.machine);
  await create("unseen");
  const after = await standInFor(cluster.connection);

  await untilPrintable(cluster, halted.machine, "Stopped");
  await untilGone(cluster, deleted.machine);
  await untilReadyWithout(cluster, young, "");
  expect(await cluster.read(kept.instance)).toMatchObject({ metadata: { uid }, status: { phase: "Running" } });
  await after.stop();
});

it("stops at once when its signal fires, and has no request left under way", { timeout: TEST_TIMEOUT_MS }, async () => {
  let open = 0;
  const { connection } = cluster;
  const counted: Connection = {
    ...connection,
    send: async (request) => {
      open++;
      return connection.send(request).finally(() => open--);
    },
  };
  const standIn = await standInFor(counted);
  await Promise.all(["a", "b", "c", "d"].map(create));

  await standIn.stop();

  expect(open).toBe(0);
});
