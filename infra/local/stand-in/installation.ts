/** The object that stands for the installation of KubeVirt. Creates it where it is missing and never changes what users wrote there. */
import type { Connection } from "../../../shared/clusters/connection.ts";
import { KUBEVIRTS } from "./objects.ts";
import { createSend, kindPath, RefusedError } from "./requests.ts";

const NAMESPACE = "kubevirt";
const NAME = "kubevirt";

/** Creates the namespace and the object. Throws what the network threw, and refusals other than that they are there already. */
export async function ensureInstallation(connection: Connection, signal: AbortSignal): Promise<void> {
  const send = createSend(connection, signal);
  const create = async (path: string, body: object) => {
    try {
      await send(`create ${path}`, { method: "POST", path, body });
      return true;
    } catch (error) {
      if (error instanceof RefusedError && error.reason === "AlreadyExists") return false;
      throw error;
    }
  };
  await create("/api/v1/namespaces", { apiVersion: "v1", kind: "Namespace", metadata: { name: NAMESPACE } });
  const path = kindPath(KUBEVIRTS, NAMESPACE);
  const isNew = await create(path, {
    apiVersion: KUBEVIRTS.apiVersion,
    kind: KUBEVIRTS.kind,
    metadata: { name: NAME },
    spec: {
      // Written out because KubeVirt's own default changed with 1.5, from Stage to LiveUpdate.
      configuration: { vmRolloutStrategy: "Stage" },
      // The stand-in plays a KubeVirt whose pools are looked after by the functions.
      customizeComponents: { flags: { controller: { "pool-controller-threads": "0" } } },
    },
  });
  if (!isNew) return;
  const body = { status: { phase: "Deployed" } };
  const contentType = "application/merge-patch+json";
  await send("report the installation", { method: "PATCH", path: `${path}/${NAME}/status`, contentType, body });
}
