/** Every command block of these pages, run line by line, in order, as a reader would. */
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { run } from "../support/command.ts";
import { eventually } from "../support/eventually.ts";
import { untilStatus } from "../support/until.ts";
import { ROOT, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "vm-pool-cirros";

const CREATE = "kubectl create -f infra/examples/vm-pool-cirros.yaml";
const DELETE = "kubectl delete vmpool vm-pool-cirros";
/** What is left to do for ever while selectors leave machines out. */
const LEFT_OUT = /(machines to go|leave it out)$/;

async function linesOf(page: string): Promise<readonly string[]> {
  const text = await readFile(join(ROOT, "docs", page), "utf8");
  const blocks = [...text.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].filter(([, language]) => language === "");
  return blocks.flatMap(([, , block = ""]) => block.trim().split("\n"));
}

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
  await eventually(async () => {
    const place = { namespace: namespace.name, name: POOL };
    const { result } = await world.runPass(place, { wide: false, observe: true });
    expect(result.decisions.filter((decision) => !LEFT_OUT.test(decision))).toEqual([]);
  });
}

async function runLines(lines: readonly string[]): Promise<void> {
  const env = {
    ...process.env,
    PATH: `${dirname(world.kubectlPath)}:${process.env["PATH"]}`,
    KUBECONFIG: world.kubeconfigPath,
  };
  for (const line of lines) {
    const { ok, stderr } = await run("bash", ["-c", `cd "${ROOT}" && ${line}`], { stdin: "", env });
    expect(ok, `${line}: ${stderr}`).toBe(true);
    await untilThere();
  }
}

it.each([
  { page: "user-guide.md", before: [], after: ["kubectl delete vm --all"], count: 11 },
  { page: "updates.md", before: [CREATE], after: [DELETE], count: 19 },
])("every line of every block of $page works as it stands", async ({ page, before, after, count }) => {
  const lines = await linesOf(page);
  expect(lines.length).toBeGreaterThanOrEqual(count);
  for (const line of lines) expect(line).toMatch(/^kubectl /);
  await runLines([...before, ...lines, ...after]);
  expect(await world.namespace("default").pool(POOL)).toBeUndefined();
});
