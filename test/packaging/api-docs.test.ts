/** docs/api.md names every field that the CRD has and every event that the code tells. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { parse } from "yaml";
import { isRecord } from "../../shared/planning/json.ts";

const ROOT = join(import.meta.dirname, "../..");
const page = await readFile(join(ROOT, "docs/api.md"), "utf8");
const words = new Set([...page.matchAll(/`([^`\n]+)`/g)].map(([, word]) => word));

/** Below these the types are not the pool's own. */
const FOREIGN =
  /(^virtualMachineTemplate\.spec|matchLabels|matchExpressions|nodeSelectorRequirementMatcher|labelSelector|conditions)\./;

function pathsOf(schema: unknown, path: string): readonly string[] {
  if (!isRecord(schema)) return [];
  const { properties, items } = schema;
  const below = isRecord(properties)
    ? Object.entries(properties).flatMap(([name, field]) => {
        const at = path === "" ? name : `${path}.${name}`;
        return [at, ...pathsOf(field, at)];
      })
    : [];
  return [...below, ...pathsOf(items, path)];
}

async function fieldsOf(part: "spec" | "status"): Promise<readonly string[]> {
  return (await pathsIn(part)).filter((path) => !FOREIGN.test(path));
}

/** The paths of all fields, foreign ones included. */
async function pathsIn(part: "spec" | "status"): Promise<readonly string[]> {
  const crd: unknown = parse(await readFile(join(ROOT, "infra/local/crds/virtualmachinepools.yaml"), "utf8"));
  const at = (object: unknown, key: string) => (isRecord(object) ? object[key] : undefined);
  const versions = at(at(crd, "spec"), "versions");
  const schemas = (Array.isArray(versions) ? versions : []).map((version) => {
    const root = at(at(version, "schema"), "openAPIV3Schema");
    return pathsOf(at(at(root, "properties"), part), "");
  });
  return [...new Set(schemas.flat())];
}

it("names every field of the spec", async () => {
  const fields = await fieldsOf("spec");
  // Both strategies have the same selection policy, which is described once.
  const named = fields.map((field) => field.replace(/^.*\.(?=selectionPolicy\.)/, ""));
  expect(fields.length).toBeGreaterThan(30);
  expect(named.filter((field) => !words.has(field))).toEqual([]);
});

it("names every field of the status", async () => {
  const fields = await fieldsOf("status");
  expect(fields).toContain("readyReplicas");
  expect(fields.filter((field) => !words.has(`status.${field}`))).toEqual([]);
});

it("names no field that does not exist (D44)", async () => {
  const spec = await pathsIn("spec");
  const status = (await pathsIn("status")).map((path) => `status.${path}`);
  const fields = new Set([...spec, ...spec.map((path) => path.replace(/^.*\.(?=selectionPolicy\.)/, "")), ...status]);
  const tables = page.slice(page.indexOf("\n## spec\n"), page.indexOf("\n| condition |"));
  const named = [...tables.matchAll(/^\| `([^`]+)` \|/gm)].map(([, field]) => field ?? "");
  expect(named.length).toBeGreaterThan(30);
  expect(named.filter((field) => !fields.has(field))).toEqual([]);
});

it("names every event and condition that the code tells", async () => {
  const folders = ["shared/planning", "shared/clusters"];
  const files = (
    await Promise.all(
      folders.map(async (folder) => (await readdir(join(ROOT, folder))).map((file) => join(ROOT, folder, file))),
    )
  ).flat();
  const sources = await Promise.all(files.map((file) => readFile(file, "utf8")));
  const told = sources.flatMap((source) =>
    [...source.matchAll(/(?:reason: |\b(?:warn|normal)\(|(?:return|:) \[)"([A-Z][a-z]+(?:[A-Z][a-z]+)+)"/g)].map(
      ([, reason]) => reason ?? "",
    ),
  );
  expect(told).toEqual(expect.arrayContaining(["SuccessfulCreate", "FailedScaleOut", "InvalidSpec", "ScaleInBlocked"]));
  expect([...new Set(told)].filter((reason) => !words.has(reason))).toEqual([]);
});

it("names every label, annotation and finalizer of ours", async () => {
  const source = await readFile(join(ROOT, "shared/planning/names.ts"), "utf8");
  const names = [...source.matchAll(/"([a-z.-]+\/[a-z-]+)"/g)].map(([, name]) => name ?? "");
  expect(names.length).toBeGreaterThan(6);
  expect(names.filter((name) => !page.includes(name))).toEqual([]);
});
