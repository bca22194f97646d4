import { expect, it } from "vitest";
import { type Cluster, createCluster, poolsOf } from "../../shared/clusters/cluster.ts";
import { readsOnly } from "../../shared/clusters/foresee.ts";
import { aWire, linesOf, ok, on } from "../support/transport.ts";
import { aPool, poolPath } from "../support/transport-objects.ts";

const POOLS = poolsOf("v1beta1");
const PLACE = { namespace: "ci", name: "web" };

function aClusterThatIsRead() {
  const wire = aWire(on(`GET ${poolPath()}`, ok(aPool())));
  const cluster = createCluster({
    transport: readsOnly(wire.send),
    meter: { requests: 0, writes: 0, bytes: 0 },
    deadline: new AbortController().signal,
    cache: { poolVersion: undefined },
  });
  return { wire, cluster };
}

it("lets reads through", async () => {
  const { wire, cluster } = aClusterThatIsRead();

  expect(await cluster.get(POOLS, PLACE)).toMatchObject({ ok: true });
  expect(linesOf(wire)).toEqual([`GET ${poolPath()}`]);
});

it.each<[string, (cluster: Cluster) => Promise<unknown>]>([
  ["create", (cluster) => cluster.create(POOLS, PLACE, aPool())],
  ["patch", (cluster) => cluster.patch(POOLS, PLACE, { type: "merge", body: {} })],
  ["delete", (cluster) => cluster.delete(POOLS, PLACE, { uid: "uid-web", resourceVersion: "1" })],
])("sends no %s", async (_verb, write) => {
  const { wire, cluster } = aClusterThatIsRead();

  expect(await write(cluster)).toMatchObject({ ok: false });
  expect(wire.sent).toEqual([]);
});
