/** The example of a relay for AKS, against the function that it sends to. */
import { expect, it } from "vitest";
import { createWebhook } from "../../functions/webhook.ts";
import { relay } from "../../infra/examples/aks-relay.ts";
import { aContext } from "../support/handlers.ts";
import { aListener, anHttpEvent } from "../support/http-events.ts";
import { anAuditEvent } from "../support/log-entries.ts";
import { NOW } from "../support/transport-objects.ts";

const SECRET = `whsec_${Buffer.alloc(32, 3).toString("base64")}`;
const TARGET = { url: "https://functions.example/clusters/west/events", secret: SECRET };

const record = (event: unknown, category = "kube-audit-admin") => ({
  category,
  properties: { log: JSON.stringify(event), stream: "stdout", pod: "kube-apiserver-0" },
});

it("sends what is about pools and machines, signed, and nothing else", async () => {
  const records = [
    record(anAuditEvent()),
    record(anAuditEvent({}, { apiGroup: "apps", resource: "deployments" })),
    record(anAuditEvent({}, { name: "db" }), "kube-apiserver"),
    {},
  ];
  const requests = relay([{ records }, {}], TARGET, NOW);
  expect(requests.map(({ url, method }) => [method, url])).toEqual([["POST", TARGET.url]]);
  const listener = aListener({ west: { standardWebhooks: [SECRET] } });
  for (const request of requests) {
    const event = anHttpEvent({
      parameters: { cluster: "west" },
      headers: Object.fromEntries(request.headers),
      body: await request.text(),
    });
    expect((await createWebhook(listener.deps)(event, aContext())).statusCode).toBe(202);
  }
  expect(listener.mailbox.sent.map(({ wakeUp }) => wakeUp.name)).toEqual(["web"]);
});

it("sends many in requests of 400, and nothing where there is nothing to tell", async () => {
  const records = Array.from({ length: 401 }, () => record(anAuditEvent()));
  expect(relay([{ records }], TARGET, NOW)).toHaveLength(2);
  expect(relay([{ records: [record({ hello: "world" })] }], TARGET, NOW)).toEqual([]);
});

it("sends no bodies, and loses only the line that was cut off", async () => {
  const event = { ...anAuditEvent(), requestObject: { spec: { userData: "#cloud-config" } } };
  const cut = { category: "kube-audit", properties: { log: JSON.stringify(event).slice(0, -20) } };
  const [request] = relay([{ records: [cut, record(event)] }], TARGET, NOW);
  const body: unknown = await request?.json();
  expect(body).toMatchObject({ kind: "EventList", items: [{ verb: "patch", objectRef: { name: "web" } }] });
  expect(JSON.stringify(body)).not.toContain("cloud-config");
});
