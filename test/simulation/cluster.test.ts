/** The in-memory cluster keeps the contract that the real API server keeps; `real-server.real.test.ts` runs the same cases there. */
import { describe, expect, it } from "vitest";
import { createMemoryCluster } from "./cluster.ts";
import { CONTRACT, type Host } from "./contract.ts";
import { collectGarbage } from "./garbage.ts";
import { loadKinds } from "./kinds.ts";

const kinds = await loadKinds();

function memoryHost(): Host {
  const cluster = createMemoryCluster({ seed: 1, kinds, now: () => 1_800_000_000_000 });
  cluster.addNamespace("here");
  return {
    namespace: "here",
    send: cluster.transport("test"),
    async eventually(assertions) {
      collectGarbage(cluster);
      await assertions();
    },
    async expired(token) {
      cluster.expirePages();
      return token;
    },
    endNamespace: async () => cluster.endNamespace("here"),
  };
}

describe("the in-memory cluster", () => {
  it.each(CONTRACT)("$name", ({ run }) => run(memoryHost()));

  it("gives the same answers for the same seed", async () => {
    const uids = [memoryHost(), memoryHost()].map(async ({ send }) => {
      const path = "/apis/kubevirt.io/v1/namespaces/here/virtualmachines";
      const body = {
        apiVersion: "kubevirt.io/v1",
        kind: "VirtualMachine",
        metadata: { name: "a" },
        spec: { template: {} },
      };
      return (await send({ method: "POST", path, body, signal: AbortSignal.timeout(1_000) })).body;
    });
    expect(await uids[0]).toEqual(await uids[1]);
  });
});
