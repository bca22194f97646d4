/** Finds pools that are gone and have left machines behind. Reads clusters. */
import * as z from "zod";
import { parsePool, parseVm } from "../planning/model.ts";
import { REVISION_LABEL } from "../planning/names.ts";
import { abandonedPools, type PlacedVm } from "../planning/strays.ts";
import { type Answer, type Cluster, VIRTUAL_MACHINES } from "./cluster.ts";
import type { PoolPlace } from "./observe.ts";

const placedSchema = z.object({ metadata: z.object({ namespace: z.string().min(1) }) });

/**
 * `pools` were listed before: the machines of a pool that was made in between look abandoned, and its pass finds that they
 * are not. Costs a page for each thousand machines that name a revision.
 */
export async function listAbandoned(
  cluster: Cluster,
  { namespaces, pools }: { readonly namespaces: readonly string[] | undefined; readonly pools: readonly unknown[] },
): Promise<Answer<readonly PoolPlace[]>> {
  const places = namespaces?.map((namespace) => ({ namespace })) ?? [{}];
  const options = { labelSelector: REVISION_LABEL, metadataOnly: true } as const;
  const vms: PlacedVm[] = [];
  for (const list of await Promise.all(places.map((place) => cluster.list(VIRTUAL_MACHINES, place, options)))) {
    if (!list.ok) return list;
    for (const object of list.value) {
      const placed = placedSchema.safeParse(object).data;
      const vm = parseVm(object, "");
      if (placed !== undefined && vm !== undefined) vms.push({ namespace: placed.metadata.namespace, vm });
    }
  }
  const living = pools.map(parsePool).filter((pool) => pool !== undefined);
  return { ok: true, value: abandonedPools(vms, living), serverTimeMs: undefined };
}
