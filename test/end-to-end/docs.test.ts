/** Every command block of the user guide, run line by line, in order, as a reader would. */
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { run } from "../support/command.ts";
import { untilStatus } from "../support/until.ts";
import { ROOT, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "vm-pool-cirros";

const guide = await readFile(join(ROOT, "docs/user-guide.md"), "utf8");
const blocks = [...guide.matchAll(/^```\n([\s\S]*?)^```$/gm)].map(([, text = ""]) => text.trim());

let world: World;

beforeAll(async () => {
  world = await startWorld();
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

/** What a reader waits for before going on: the pool is as it asks for, paused (then nothing comes), or gone. */
async function untilThere(): Promise<void> {
  const namespace = world.namespace("default");
  const pool = await namespace.pool(POOL);
  if (pool === undefined || pool.metadata.deletionTimestamp !== undefined) return;
  const { stdout } = await world.tryKubectl(["get", "vmpool", POOL, "-o", "jsonpath={.spec.replicas} {.spec.paused}"]);
  const [replicas, paused] = [Number(stdout.split(" ")[0]), stdout.endsWith("true")];
  if (paused) return;
  await untilStatus(namespace, POOL, { replicas, readyReplicas: replicas });
}

it("has commands to run", () => {
  expect(blocks.length).toBeGreaterThanOrEqual(6);
  for (const block of blocks) expect(block).toMatch(/^kubectl /);
});

it("every line of every block works as it stands", async () => {
  const env = {
    ...process.env,
    PATH: `${dirname(world.kubectlPath)}:${process.env["PATH"]}`,
    KUBECONFIG: world.kubeconfigPath,
  };
  for (const line of blocks.flatMap((block) => block.split("\n"))) {
    const { ok, stderr } = await run("bash", ["-c", `cd "${ROOT}" && ${line}`], { stdin: "", env });
    expect(ok, `${line}: ${stderr}`).toBe(true);
    await untilThere();
  }
  expect(await world.namespace("default").pool(POOL)).toBeUndefined();
});
