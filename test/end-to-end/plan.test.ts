/** What would be done, by the command and over HTTP, against the real API server; neither ever writes. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse, stringify } from "yaml";
import { isRecord } from "../../shared/planning/json.ts";
import { type CommandOutcome, run } from "../support/command.ts";
import { type HttpFunctions, serveFunctions } from "../support/http-functions.ts";
import { namesOf } from "../support/objects.ts";
import { aPool } from "../support/pool-manifests.ts";
import { untilReady, untilSettled } from "../support/until.ts";
import { type Finishing, type Namespace, ROOT, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "web";
const READER = "reader";
const SECRET = "s3cr3t";
/** Nobody listens there. */
const AWAY = "https://127.0.0.1:1";

let world: World;
let fleet: HttpFunctions;
let readersKubeconfig: string;

beforeAll(async () => {
  world = await startWorld();
  readersKubeconfig = await aReader();
  fleet = await serveFunctions("fleet", {
    away: { ...world.functionsAccess, server: AWAY },
    local: { ...world.functionsAccess, mode: "observe" },
  });
}, WORLD_TIMEOUT_MS);

afterAll(async () => {
  await fleet.stop();
  await world.stop();
});

/** A kubeconfig with the rights that docs/plan.md lists, so none to write anything. */
async function aReader(): Promise<string> {
  const resources =
    "virtualmachinepools,virtualmachines,virtualmachineinstances,controllerrevisions.apps,datavolumes,persistentvolumeclaims";
  await world.kubectl("create", "clusterrole", READER, "--verb=get,list", `--resource=${resources}`);
  await world.kubectl("create", "serviceaccount", READER, "--namespace=default");
  await world.kubectl(
    "create",
    "clusterrolebinding",
    READER,
    `--clusterrole=${READER}`,
    `--serviceaccount=default:${READER}`,
  );
  const token = (await world.kubectl("create", "token", READER, "--namespace=default")).trim();
  const config: unknown = parse(await world.kubectl("config", "view", "--raw", "--minify"));
  const path = join(world.dir, "reader.kubeconfig");
  const users = isRecord(config) && Array.isArray(config["users"]) ? config["users"] : [];
  await writeFile(path, stringify({ ...Object(config), users: users.map(({ name }) => ({ name, user: { token } })) }));
  return path;
}

/** What `npm run pool -- plan …` runs, as somebody who may only read. */
function plan(args: readonly string[], stdin = ""): Promise<CommandOutcome> {
  const env = { ...process.env, KUBECONFIG: readersKubeconfig, INIT_CWD: ROOT };
  return run(process.execPath, [join(ROOT, "infra/cli/pool.ts"), "plan", ...args], { env, stdin });
}

async function aNamespaceWithPool(test: Finishing, changes: Parameters<typeof aPool>[1] = {}): Promise<Namespace> {
  const namespace = await world.aNamespace(test);
  await namespace.create(aPool(POOL, changes));
  await untilSettled(world, { namespace, name: POOL }, { replicas: 1, readyReplicas: 1 });
  return namespace;
}

describe.concurrent("the plan of a pool", () => {
  it("is empty when the pool is as it should be, and foretells what a manifest would do", async (test) => {
    const { name, kubectl } = await aNamespaceWithPool(test);

    expect(await plan([`${name}/${POOL}`])).toMatchObject({
      code: 0,
      stdout: `${name}/${POOL}, generation 1: 1 machine wanted, 1 there, 1 ready\nThe next pass would write nothing.\n`,
    });
    const unchanged = JSON.stringify(aPool(POOL));
    expect(await plan(["-n", name, "-f", "-"], unchanged)).toMatchObject({ code: 0 });

    const manifest = JSON.stringify(aPool(POOL, { replicas: 3 }));
    const { code, stdout } = await plan([POOL, "-n", name, "-f", "-", "-o", "json"], manifest);
    expect(code).toBe(1);
    const foretold = JSON.parse(stdout);
    expect(foretold).toMatchObject({ edit: "edited", generation: 2, machines: { wanted: 3, there: 1, ready: 1 } });
    const created = foretold.actions.flatMap((action: { kind: string; machine?: string }) =>
      action.kind === "createVm" ? [action.machine] : [],
    );
    expect(created).toEqual([`${POOL}-1`, `${POOL}-2`]);

    await kubectl("scale", "vmpool", POOL, "--replicas=3");
    const namespace = world.namespace(name);
    await untilReady(namespace, POOL, 3);
    expect(namesOf(await namespace.machines())).toEqual([`${POOL}-0`, ...created]);
  });

  it("is made for a pool that does not exist, and for one that would be refused", async (test) => {
    const { name } = await world.aNamespace(test);
    const created = await plan(["-n", name, "-f", "-"], JSON.stringify(aPool(POOL)));
    expect(created).toMatchObject({ code: 1 });
    expect(created.stdout).toContain(`${name}/${POOL}, created from the manifest`);

    const illegal = await plan(["-n", name, "-f", "-"], JSON.stringify(aPool(POOL, { labels: { app: "other" } })));
    expect(illegal.code).toBe(2);
    expect(illegal.stdout).toMatch(/^ {2}spec\.selector: /m);
    expect(await world.namespace(name).pool(POOL)).toBeUndefined();
  });

  it("ends in one sentence when there is no pool, no cluster or no such option", async (test) => {
    const { name } = await world.aNamespace(test);

    const gone = await plan([`${name}/nothing`]);
    expect(gone).toMatchObject({ code: 2, stdout: "" });
    expect(gone.stderr).toMatch(new RegExp(`^there is no pool ${name}/nothing in https://\\S+\n$`));
    expect(await plan(["web", "--kubeconfig", "nowhere"])).toMatchObject({
      code: 2,
      stderr: `${join(ROOT, "nowhere")} does not exist: give --kubeconfig a file that kubectl can use\n`,
    });
    expect(await plan(["web", "--act"])).toMatchObject({ code: 2, stderr: expect.stringContaining("--act") });
    expect(await plan(["--help"])).toMatchObject({ code: 0, stdout: expect.stringContaining("Usage: ") });
  });
});

describe.concurrent("the fleet over HTTP", () => {
  it("shows pools of all clusters, beside one that is away", async (test) => {
    const { name } = await aNamespaceWithPool(test);
    const seen: unknown[] = [];
    let path: string | undefined = "/pools?limit=1";
    while (path !== undefined) {
      const { status, body } = await fleet.send(path);
      expect(status).toBe(200);
      const pools: unknown[] = Array.isArray(body["pools"]) ? body["pools"] : [];
      seen.push(...pools);
      if (seen.length <= 1) {
        expect(body["unreachable"]).toEqual([
          { cluster: "away", reason: "unreachable", message: expect.stringContaining("ECONNREFUSED") },
        ]);
      }
      path = body["continue"] === undefined ? undefined : `/pools?limit=1&continue=${body["continue"]}`;
    }
    expect(seen).toContainEqual(
      expect.objectContaining({ cluster: "local", namespace: name, name: POOL, ready: 1, rollout: "complete" }),
    );
  });

  it("shows one pool with its machines, its plan and none of its secrets", async (test) => {
    const cloudInitNoCloud = { userData: `#cloud-config\npassword: ${SECRET}` };
    const { name } = await aNamespaceWithPool(test, { volumes: [{ name: "seed", cloudInitNoCloud }] });

    const { status, body, text } = await fleet.send(`/clusters/local/namespaces/${name}/pools/${POOL}`);

    expect(status).toBe(200);
    expect(text).not.toContain(SECRET);
    expect(body).toMatchObject({
      cluster: "local",
      mode: "observe",
      desired: 1,
      status: { replicas: 1, readyReplicas: 1 },
      members: [{ name: `${POOL}-0`, ordinal: 0, revision: `${POOL}-1`, ready: true, terminating: false }],
      plan: { problems: [], actions: [], reasons: [] },
    });
  });

  it("answers with problem documents", async () => {
    const type = "application/problem+json";
    expect(await fleet.send("/pools", { token: "wrong" })).toMatchObject({ status: 401, type });
    expect(await fleet.send("/pools?limit=no")).toMatchObject({ status: 400, type });
    expect(await fleet.send("/clusters/moon/namespaces/default/pools/web")).toMatchObject({ status: 404, type });
    expect(await fleet.send("/clusters/local/namespaces/default/pools/nothing")).toMatchObject({ status: 404, type });
    expect(await fleet.send("/clusters/away/namespaces/default/pools/web")).toMatchObject({ status: 503, type });
  });
});
