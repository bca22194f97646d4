/** The local cluster: a control plane with everything applied that KubeVirt and the functions need of it. Machines and functions come later. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { ServerAccess } from "../../shared/clusters/access.ts";
import { type Connection, openConnection } from "../../shared/clusters/connection.ts";
import { WEBHOOK_CONFIGURATIONS } from "../kubernetes/webhooks.ts";
import { type ControlPlane, type ControlPlaneOptions, startControlPlane } from "./control-plane/control-plane.ts";
import { applyManifests, type Manifest, readManifests, waitForCrds } from "./control-plane/manifests.ts";
import type { EventsListener } from "./events-listener.ts";

const CRDS = fileURLToPath(new URL("crds/", import.meta.url));
const RBAC = fileURLToPath(new URL("../kubernetes/rbac.yaml", import.meta.url));

export interface LocalClusterOptions extends Omit<ControlPlaneOptions, "extraApiserverFlags" | "beforeControllers"> {
  /** Who hears of changes; the API server tells nobody when it is undefined. */
  readonly events: Pick<EventsListener, "apiserverFlags" | "manifests"> | undefined;
}

/** Starts a control plane that serves KubeVirt's kinds, tells `events` of changes and lets the functions in. */
export async function startLocalCluster({ events, ...options }: LocalClusterOptions): Promise<ControlPlane> {
  const crds = await readCrds();
  const manifests = [...crds, ...(await readManifests(RBAC)), ...(events?.manifests ?? [])];
  const beforeControllers = async (access: ServerAccess, signal: AbortSignal) => {
    const connection = openConnection(access);
    try {
      await applyManifests(connection, manifests, { signal });
      if (events === undefined) await removeWebhooks(connection, signal);
      await waitForCrds(connection, crds, { signal });
    } finally {
      await connection.close();
    }
  };
  return startControlPlane({ ...options, extraApiserverFlags: events?.apiserverFlags ?? [], beforeControllers });
}

/** The custom resources of KubeVirt, CDI and the metrics API, as far as pools need them. */
async function readCrds(): Promise<readonly Manifest[]> {
  const files = (await readdir(CRDS)).sort();
  return (await Promise.all(files.map((file) => readManifests(join(CRDS, file))))).flat();
}

/** What an earlier start with webhooks has left. */
export async function removeWebhooks(connection: Connection, signal: AbortSignal): Promise<void> {
  for (const name of WEBHOOK_CONFIGURATIONS) {
    const path = `/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/${name}`;
    await connection.send({ method: "DELETE", path, signal });
  }
}
