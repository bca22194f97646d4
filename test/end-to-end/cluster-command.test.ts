/** `npm run cluster` against a real API server: a cluster is registered, checked right by right, and let go. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseAllDocuments } from "yaml";
import * as z from "zod";
import { lookForDelivery, type NoticeReader } from "../../infra/cli/delivery.ts";
import { describeRight, lookForRights } from "../../infra/cli/rights.ts";
import { type Right, rightsNeeded } from "../../infra/kubernetes/manifests.ts";
import { type Connection, openConnection } from "../../shared/clusters/connection.ts";
import { createFileRegistry } from "../../shared/clusters/registry.ts";
import { CHECK_NOTICE, NOTICE_SOURCES } from "../../shared/events/changes.ts";
import { type CommandOutcome, run } from "../support/command.ts";
import { type EventsWorld, startEventsWorld } from "../support/events-world.ts";
import { eventually } from "../support/eventually.ts";
import { ROOT, WORLD_TIMEOUT_MS } from "../support/world.ts";

const NAME = "lab";
const ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

let world: EventsWorld;
let registry: string;

beforeAll(async () => {
  world = await startEventsWorld({ standIn: false });
  registry = join(world.dir, "registry.json");
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

/** What `npm run cluster -- …` runs. */
function cluster(...args: readonly string[]): Promise<CommandOutcome> {
  const program = ["--disable-warning=ExperimentalWarning", join(ROOT, "infra/cli/cluster.ts")];
  const env = { PATH: process.env["PATH"], HOME: world.dir, INIT_CWD: world.dir, KUBECONFIG: world.kubeconfigPath };
  return run(process.execPath, [...program, ...args], { env });
}

const signal = () => AbortSignal.timeout(30_000);

describe("the check of events", () => {
  beforeAll(() => world.startFunctions({ resyncSeconds: 0 }));

  /** As it looks into a log file, with the lines of this process. */
  const readNotices: NoticeReader = async (pool) =>
    world.logged
      .filter(({ message, fields }) => message === CHECK_NOTICE && fields["pool"] === pool)
      .map(({ fields }) => ({ source: z.enum(NOTICE_SOURCES).parse(fields["source"]), at: Date.now() }));

  const check = (waitMs: number) =>
    lookForDelivery({
      connection: world.connection,
      version: "v1beta1",
      namespace: "default",
      webhook: { path: ["a".repeat(64)], bearer: ["b".repeat(64)] },
      waitMs,
      readNotices,
    });

  it("tells what has told of a harmless change, and leaves nothing behind", async () => {
    const findings = await check(60_000);
    const told = findings.map(({ verdict, text }) => `${verdict} ${text.split(" tells of changes")[0]}`);
    expect(told.toSorted()).toEqual(["good the admission webhook", "good the audit webhook of the API server"]);
    expect(await world.kubectl("get", "vmpool", "--namespace=default", "-o", "name")).toBe("");
  });

  it("misses the webhook that is not applied", async () => {
    await world.setAdmission(false);
    const findings = await check(5_000);
    expect(findings).toContainEqual({
      verdict: "bad",
      text: expect.stringContaining("the admission webhook told nothing within 5 s"),
    });
    expect(findings).toContainEqual({
      verdict: "good",
      text: expect.stringContaining("the audit webhook of the API server tells"),
    });
    await world.setAdmission(true);
  });

  afterAll(() => world.stopFunctions());
});

describe("a cluster that is added by a context", () => {
  const context = () => world.kubectl("config", "current-context").then((name) => name.trim());
  const common = () => ["--dir", world.dir, "--kubeconfig", world.kubeconfigPath];

  it("gets the objects and a ServiceAccount, whose token is registered, and is green at once", async () => {
    const args = ["add", NAME, "--from-context", await context(), "--service-account", "--apply", ...common()];
    const added = await cluster(...args);
    expect(added.stderr).toContain(`${NAME} (${world.access.server}) is registered in ${registry}, in mode observe`);
    expect(added.stdout).toContain("serviceaccount/vmpool-functions created\n");
    expect(added.code).toBe(0);
    const access = await createFileRegistry(registry).access(NAME);
    expect(access).toMatchObject({ server: world.access.server, auth: { kind: "token" }, mode: "observe" });
    expect(JSON.stringify(await createFileRegistry(registry).webhook(NAME))).toMatch(/^{"path":\["[0-9a-f]{64}"\]}$/);

    const checked = await cluster("check", NAME, ...common());
    expect(checked.stdout).toContain(`  ok  the functions have all ${rightsNeeded().length} rights\n`);
    expect(checked.stdout).not.toMatch(/NO|\?\?/);
    expect(checked.code).toBe(0);
  });

  it("is given only what has changed when it is registered anew: a secret", async () => {
    const args = ["add", NAME, "--from-context", await context(), "--service-account", "--apply", ...common()];
    const replaced = await cluster(...args, "--replace");
    expect(replaced.stdout).toContain("/vmpool-functions-notices configured\n");
    expect(replaced.stdout).toContain("secret/vmpool-functions unchanged\n");
    expect(replaced.stdout).toContain("clusterrole.rbac.authorization.k8s.io/vmpool-functions unchanged\n");
    expect(replaced.code).toBe(0);
  });

  it("is let act, and goes with what it was given", async () => {
    expect(await cluster("mode", NAME, "act", ...common())).toMatchObject({ code: 0 });
    expect(await createFileRegistry(registry).access(NAME)).toMatchObject({ mode: "act" });
    const removed = await cluster("remove", NAME, "--yes", "--apply", ...common());
    expect(removed.stdout).toContain(
      "validatingwebhookconfiguration.admissionregistration.k8s.io/vmpool-functions-notices deleted",
    );
    expect(removed.code).toBe(0);
    expect(await createFileRegistry(registry).names()).toEqual([]);
    expect((await world.tryKubectl(["get", "clusterrole", "vmpool-functions"])).ok).toBe(false);
    await world.kubectl("apply", "-f", join(ROOT, "infra/kubernetes/rbac.yaml"));
  });
});

describe("what is printed", () => {
  it("is YAML that kubectl applies as it stands, with the secret in it and nowhere else", async () => {
    const kubeconfig = join(world.dir, "functions.kubeconfig");
    await writeFile(kubeconfig, functionsKubeconfig());
    const endpoint = ["--endpoint", "https://vmpools.example/"];
    const added = await cluster(
      "add",
      "printed",
      "--from-context",
      "it",
      "--kubeconfig",
      kubeconfig,
      "--registry",
      registry,
      ...endpoint,
    );
    expect(added).toMatchObject({ code: 0 });
    const token =
      /https:\/\/vmpools\.example\/clusters\/printed\/admission\/([\w-]{43})$/m.exec(added.stdout)?.[1] ?? "";
    expect(token).not.toBe("");
    expect(added.stderr).not.toContain(token);
    expect(await readFile(registry, "utf8")).not.toContain(token);
    expect(parseAllDocuments(added.stdout).every((document) => document.errors.length === 0)).toBe(true);
    const applied = await world.tryKubectl(
      ["apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-"],
      { stdin: added.stdout },
    );
    expect(applied, applied.stderr).toMatchObject({ ok: true });
    expect(added.stderr).not.toContain("must be of a member of the group");
  });

  function functionsKubeconfig(): string {
    const { server, certificateAuthorityData, auth } = world.functionsAccess;
    if (auth.kind !== "clientCertificate") throw new Error("the functions come in by a certificate");
    const user = { "client-certificate-data": auth.certificateData, "client-key-data": auth.keyData };
    return JSON.stringify({
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name: "it", cluster: { server, "certificate-authority-data": certificateAuthorityData } }],
      users: [{ name: "it", user }],
      contexts: [{ name: "it", context: { cluster: "it", user: "it" } }],
      "current-context": "it",
    });
  }
});

describe("the check of rights", () => {
  let functions: Connection;

  beforeAll(() => {
    functions = openConnection(world.functionsAccess);
  });

  afterAll(() => functions.close());

  const ask = () =>
    lookForRights({ send: functions.send, rights: rightsNeeded(), namespaces: undefined, signal: signal() });

  it("names each right when it is taken away, and no other", async () => {
    const roles = await readRoles();
    expect(rightsNeeded().length).toBeGreaterThan(30);
    for (const right of rightsNeeded()) {
      const role = roles.find((one) => takeAway(one, right) !== undefined);
      if (role === undefined) throw new Error(`no role has the right to ${describeRight(right)}`);
      await writeRules(role.metadata.name, takeAway(role, right) ?? []);
      const text = `the functions may not ${describeRight(right)}: apply the roles (docs/permissions.md)`;
      await eventually(async () => expect(await ask()).toEqual([{ verdict: "bad", text }]));
      await writeRules(role.metadata.name, role.rules);
    }
    await eventually(async () =>
      expect(await ask()).toEqual([
        { verdict: "good", text: `the functions have all ${rightsNeeded().length} rights` },
      ]),
    );
  });

  const roleSchema = z.object({
    metadata: z.object({ name: z.string() }),
    rules: z.array(
      z.object({ apiGroups: z.array(z.string()), resources: z.array(z.string()), verbs: z.array(z.string()) }),
    ),
  });
  type Role = z.infer<typeof roleSchema>;

  async function readRoles(): Promise<readonly Role[]> {
    const names = ["vmpool-functions", "vmpool-functions-cluster"];
    const answers = await Promise.all(
      names.map((name) => world.connection.send({ method: "GET", path: `${ROLES}/${name}`, signal: signal() })),
    );
    return answers.map(({ body }) => roleSchema.parse(body));
  }

  /** The role's rules without that right; undefined when it has not got it. */
  function takeAway({ rules }: Role, { group, resource, subresource, verb }: Right): Role["rules"] | undefined {
    const full = subresource === undefined ? resource : `${resource}/${subresource}`;
    const holds = ({ apiGroups, resources, verbs }: Role["rules"][number]) =>
      apiGroups.includes(group) && resources.includes(full) && verbs.includes(verb);
    if (!rules.some(holds)) return undefined;
    return rules
      .map((rule) => (holds(rule) ? { ...rule, verbs: rule.verbs.filter((one) => one !== verb) } : rule))
      .filter(({ verbs }) => verbs.length > 0);
  }

  async function writeRules(name: string, rules: Role["rules"]): Promise<void> {
    const { status } = await world.connection.send({
      method: "PATCH",
      path: `${ROLES}/${name}`,
      body: { rules },
      contentType: "application/merge-patch+json",
      signal: signal(),
    });
    if (status !== 200) throw new Error(`the role ${name} was not changed: ${status}`);
  }
});
