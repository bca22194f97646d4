/** The https listener that the local API server calls with audit events and admission reviews, and the secrets for it. */
import { randomBytes } from "node:crypto";
import { createServer } from "node:https";
import { join } from "node:path";
import type { ClusterWebhook } from "../../shared/clusters/registry.ts";
import { hashSecret } from "../../shared/events/signatures.ts";
import { AUDIT_POLICY, auditKubeconfig, webhookConfigurations } from "../kubernetes/webhooks.ts";
import { ensurePki, ensureServingCertificate } from "./control-plane/certificates.ts";
import { writeAtomically } from "./control-plane/files.ts";
import { type Manifest, parseManifests } from "./control-plane/manifests.ts";
import { type Route, serveRoutes } from "./routes.ts";

export interface EventsListener {
  /** Flags that make the API server send its audit events here. */
  readonly apiserverFlags: readonly string[];
  /** What makes the API server send admission reviews here. */
  readonly manifests: readonly Manifest[];
  /** The registry entry that lets these requests in. */
  readonly webhook: ClusterWebhook;
  /** Until then every request is answered 404, which holds up nothing. */
  serve(routes: readonly Route[]): void;
  close(): Promise<void>;
}

/** Listens on a free port of 127.0.0.1. The secrets are new at each start, like the port. */
export async function listenForEvents(dir: string, cluster: string): Promise<EventsListener> {
  const { ca } = await ensurePki(dir);
  const { certificate, key } = await ensureServingCertificate(dir, "events");
  let routes: readonly Route[] = [];
  const server = createServer({ cert: certificate, key }, (request, response) => {
    void serveRoutes({ routes }, request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const [pathToken, bearerToken] = [randomBytes(32).toString("base64url"), randomBytes(32).toString("base64url")];
  const base = `https://127.0.0.1:${port}/clusters/${cluster}`;
  const caBundle = Buffer.from(ca.certificate).toString("base64");
  const kubeconfigPath = join(dir, "audit-webhook.kubeconfig");
  const audit = auditKubeconfig({ url: `${base}/events`, certificateAuthorityData: caBundle, token: bearerToken });
  await writeAtomically(kubeconfigPath, JSON.stringify(audit), 0o600);
  return {
    apiserverFlags: [
      `--audit-policy-file=${AUDIT_POLICY}`,
      `--audit-webhook-config-file=${kubeconfigPath}`,
      "--audit-webhook-batch-max-wait=200ms",
    ],
    manifests: webhookConfigurations({ url: `${base}/admission/${pathToken}`, caBundle }).flatMap((object) =>
      parseManifests(JSON.stringify(object)),
    ),
    webhook: { path: [hashSecret(pathToken)], bearer: [hashSecret(bearerToken)] },
    serve(given) {
      routes = given;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
