/** The line by which `npm run cluster -- check --events` knows that a source of events delivers. */
import { expect, it } from "vitest";
import { createAdmission } from "../../functions/admission.ts";
import { createAudit } from "../../functions/audit.ts";
import { createWebhook } from "../../functions/webhook.ts";
import { CHECK_NOTICE, CHECK_POOL_PREFIX } from "../../shared/events/changes.ts";
import { aContext } from "../support/handlers.ts";
import { aListener, anHttpEvent, BEARER_TOKEN, PATH_TOKEN } from "../support/http-events.ts";
import { aLogDelivery, aLogEntry, anAuditEvent, aPush } from "../support/log-entries.ts";

const CHECKED = `${CHECK_POOL_PREFIX}0a1b2c3d`;
const OTHER = "web";

function anAudit(name: string) {
  return anAuditEvent({ verb: "create" }, { name });
}

const auditList = (name: string) => ({ kind: "EventList", apiVersion: "audit.k8s.io/v1", items: [anAudit(name)] });
const push = (name: string) =>
  aPush(aLogEntry({ resourceName: `pool.kubevirt.io/v1beta1/namespaces/ci/virtualmachinepools/${name}` }));
const cloudEvent = (name: string) => ({
  specversion: "1.0",
  id: "6f1c",
  type: "dev.knative.apiserver.ref.add",
  source: "https://10.96.0.1:443",
  data: { apiVersion: "pool.kubevirt.io/v1beta1", kind: "VirtualMachinePool", name, namespace: "ci" },
});
const review = (name: string) => ({
  apiVersion: "admission.k8s.io/v1",
  kind: "AdmissionReview",
  request: {
    uid: "review-1",
    resource: { group: "pool.kubevirt.io", version: "v1beta1", resource: "virtualmachinepools" },
    name,
    namespace: "ci",
    operation: "DELETE",
    oldObject: { metadata: { name, namespace: "ci" } },
  },
});

type Listener = ReturnType<typeof aListener>;

async function post({ deps }: Listener, body: unknown, contentType = "application/json"): Promise<void> {
  const headers = { authorization: `Bearer ${BEARER_TOKEN}`, "content-type": contentType };
  await createWebhook(deps)(anHttpEvent({ parameters: { cluster: "west" }, headers, body }), aContext());
}

it.each<[string, (listener: Listener, name: string) => Promise<unknown>]>([
  ["audit", (listener, name) => post(listener, auditList(name))],
  ["cloudEvent", (listener, name) => post(listener, cloudEvent(name), "application/cloudevents+json")],
  ["pubSub", (listener, name) => post(listener, push(name))],
  [
    "admission",
    ({ deps }, name) => {
      const parameters = { cluster: "west", token: PATH_TOKEN };
      return createAdmission(deps)(anHttpEvent({ parameters, body: review(name) }), aContext());
    },
  ],
  [
    "eksAudit",
    ({ deps }, name) => createAudit(() => ({ ...deps(), clusters: {} }))(aLogDelivery([anAudit(name)]), aContext()),
  ],
])("tells of a check's pool that came from %s, and of no other", async (source, send) => {
  const listener = aListener();
  await send(listener, OTHER);
  expect(listener.mailbox.sent.length).toBeGreaterThan(0);
  expect(listener.log.at("info")).toEqual([]);
  await send(listener, CHECKED);
  expect(listener.log.lines.filter(({ message }) => message === CHECK_NOTICE)).toEqual([
    { level: "info", message: CHECK_NOTICE, fields: { cluster: "west", source, pool: CHECKED } },
  ]);
});
