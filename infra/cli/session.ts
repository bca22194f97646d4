/** What a running `npm start` listens at for its API server: good for other clusters on the same machine, too. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { parseJson } from "../../shared/planning/json.ts";
import type { Endpoint } from "./registration.ts";

const schema = z.object({
  clusters: z.tuple([z.object({ cluster: z.object({ server: z.url(), "certificate-authority-data": z.string() }) })]),
});

/** Undefined when no session was started there, or one without webhooks. Its port is another one at each start. */
export async function readSession(dir: string): Promise<Endpoint | undefined> {
  const text = await readFile(join(dir, "audit-webhook.kubeconfig"), "utf8").catch(() => "");
  const parsed = schema.safeParse(parseJson(text));
  if (!parsed.success) return undefined;
  const [{ cluster }] = parsed.data.clusters;
  return { address: new URL(cluster.server).origin, caBundle: cluster["certificate-authority-data"] };
}
