/** Every property of a pool's spec goes through its values, and every two values of two properties meet, on the cluster in memory. */
import { describe, expect, it } from "vitest";
import * as z from "zod";
import { readManifests } from "../../infra/local/control-plane/manifests.ts";
import { isRecord } from "../../shared/planning/json.ts";
import { loadKinds } from "./kinds.ts";
import { createRandom } from "./random.ts";
import { allPairs, coverPairs, PROPERTIES, specsOf, type Walked, walkIllegal, walkLegal, walkPairs } from "./walks.ts";

/** A bound for what hangs, nothing that is measured. */
const TIMEOUT_MS = 15 * 60_000;
/** `WALK_SEED=7` orders what is combined otherwise. */
const SEED = Number(process.env["WALK_SEED"] ?? 1);
const kinds = await loadKinds();

function expectDone({ failure }: Walked): void {
  if (failure !== undefined) expect.fail(failure);
}

describe.concurrent("a pool that goes from one value of a property to another and back", () => {
  it.for(PROPERTIES)(
    "comes to rest each time, in the one state of that value: $name",
    { timeout: TIMEOUT_MS },
    async (property) => expectDone(await walkLegal(property, kinds)),
  );
});

describe.concurrent("a pool that becomes illegal and is repaired", () => {
  it.for(PROPERTIES)("keeps every machine as it is: $name", { timeout: TIMEOUT_MS }, async (property) =>
    expectDone(await walkIllegal(property, kinds)),
  );
});

describe("a pool in which any two values of two properties are together", () => {
  it("comes to rest in the state that its spec says", { timeout: TIMEOUT_MS }, async () =>
    expectDone(await walkPairs(SEED, kinds)),
  );

  it("is each of them once, at least", () => {
    const places = new Map(
      PROPERTIES.flatMap(({ legal }, index) => legal.map((value, at) => [value, `${index}.${at}`])),
    );
    const met = coverPairs(PROPERTIES, createRandom(SEED)).flatMap((row) =>
      row.flatMap((one, index) => row.slice(index + 1).map((other) => `${places.get(one)} ${places.get(other)}`)),
    );
    const seen = new Set(met);
    expect(allPairs(PROPERTIES).filter((pair) => !seen.has(pair))).toEqual([]);
  });
});

describe("the walks", () => {
  it("know every field of a pool's spec", async () => {
    const [crd] = await readManifests("infra/local/crds/virtualmachinepools.yaml");
    const [version] = crdSchema.parse(crd).spec.versions;
    const known = new Set(specsOf(PROPERTIES).flatMap((spec) => pathsOf(spec, "")));
    const fields = fieldsOf(version?.schema.openAPIV3Schema.properties.spec, "");
    expect(fields.length).toBeGreaterThan(30);
    expect(fields.filter((field) => !known.has(field))).toEqual([]);
  });
});

const nodeSchema = z.looseObject({
  get properties() {
    return z.record(z.string(), nodeSchema).optional();
  },
  get items() {
    return nodeSchema.optional();
  },
});
const crdSchema = z.object({
  spec: z.object({
    versions: z.array(
      z.object({ schema: z.object({ openAPIV3Schema: z.object({ properties: z.object({ spec: nodeSchema }) }) }) }),
    ),
  }),
});

/** The fields that the schema names; elements of a list have the path of the list. */
function fieldsOf(node: z.infer<typeof nodeSchema> | undefined, path: string): readonly string[] {
  const own = Object.entries(node?.properties ?? {}).flatMap(([field, child]) => [
    `${path}.${field}`,
    ...fieldsOf(child, `${path}.${field}`),
  ]);
  return [...own, ...(node?.items === undefined ? [] : fieldsOf(node.items, path))];
}

function pathsOf(value: unknown, path: string): readonly string[] {
  if (Array.isArray(value)) return value.flatMap((entry) => pathsOf(entry, path));
  if (!isRecord(value)) return [];
  return Object.entries(value).flatMap(([field, child]) => [`${path}.${field}`, ...pathsOf(child, `${path}.${field}`)]);
}
