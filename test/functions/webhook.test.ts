import { describe, expect, it } from "vitest";
import { createWebhook } from "../../functions/webhook.ts";
import { aContext } from "../support/handlers.ts";
import { aListener, anHttpEvent, BEARER_TOKEN, type HttpFields } from "../support/http-events.ts";
import { NOW } from "../support/transport-objects.ts";

const AUTHORIZED = { authorization: `Bearer ${BEARER_TOKEN}` };

async function post({ headers = {}, parameters = { cluster: "west" }, ...fields }: HttpFields, listener = aListener()) {
  const event = anHttpEvent({ parameters, headers: { ...AUTHORIZED, ...headers }, ...fields });
  const answer = await createWebhook(listener.deps)(event, aContext());
  return {
    ...listener,
    answer,
    woken: listener.mailbox.sent.map(({ wakeUp }) => `${wakeUp.namespace}/${wakeUp.name} ${wakeUp.cause}`),
  };
}

function anAuditEvent(fields: object = {}, objectRef: object = {}) {
  return {
    level: "Metadata",
    auditID: "a",
    stage: "ResponseComplete",
    verb: "patch",
    requestURI: "/apis/pool.kubevirt.io/v1beta1/namespaces/ci/virtualmachinepools/web",
    user: { username: "kubernetes-admin", groups: ["system:masters"] },
    objectRef: {
      resource: "virtualmachinepools",
      namespace: "ci",
      name: "web",
      apiGroup: "pool.kubevirt.io",
      apiVersion: "v1beta1",
      ...objectRef,
    },
    responseStatus: { metadata: {}, code: 200 },
    ...fields,
  };
}

const anEventList = (...items: readonly unknown[]) => ({
  kind: "EventList",
  apiVersion: "audit.k8s.io/v1",
  metadata: {},
  items,
});
const VM_REF = { resource: "virtualmachines", apiGroup: "kubevirt.io", name: "web-0" };

describe("audit events", () => {
  it("wake the pool that a finished write is about", async () => {
    const { answer, mailbox } = await post({ body: anEventList(anAuditEvent()) });
    expect(answer.statusCode).toBe(202);
    expect(mailbox.sent).toEqual([
      {
        queue: "passes",
        seenAtMs: NOW,
        wakeUp: { version: 1, cluster: "west", namespace: "ci", name: "web", cause: "pool", attempt: 0 },
      },
    ]);
  });

  it("of machines wake their pool once a cause, however many there are", async () => {
    const items = [0, 1, 2].map((ordinal) => anAuditEvent({ verb: "delete" }, { ...VM_REF, name: `web-${ordinal}` }));
    const { woken } = await post({ body: anEventList(...items, anAuditEvent()) });
    expect(woken).toEqual(["ci/web vm", "ci/web pool"]);
  });

  it.each([
    ["a read", anAuditEvent({ verb: "get" })],
    ["a refused write", anAuditEvent({ responseStatus: { code: 409 } })],
    ["a write that has only begun", anAuditEvent({ stage: "RequestReceived" })],
    ["a dry run", anAuditEvent({ requestURI: "/apis/x?fieldManager=k&dryRun=All" })],
    ["a collection without a name", anAuditEvent({ verb: "deletecollection" }, { ...VM_REF, name: undefined })],
    ["another kind", anAuditEvent({}, { resource: "pods", apiGroup: undefined })],
    ["our own write to a machine", anAuditEvent({ user: { groups: ["vmpool-functions"] } }, VM_REF)],
  ])("of %s wake nobody", async (_name, item) => {
    const { answer, woken } = await post({ body: anEventList(item) });
    expect([answer.statusCode, woken]).toEqual([202, []]);
  });

  it("of a machine's status ask for no wide look", async () => {
    const { woken } = await post({ body: anEventList(anAuditEvent({}, { ...VM_REF, subresource: "status" })) });
    expect(woken).toEqual(["ci/web instance"]);
  });

  it("that are bad do not lose the others", async () => {
    const { answer, woken } = await post({ body: anEventList({ stage: 7 }, anAuditEvent(), "x") });
    expect([answer.statusCode, JSON.parse(answer.body), woken]).toEqual([
      202,
      { woken: 1, unreadable: 2 },
      ["ci/web pool"],
    ]);
  });
});

describe("CloudEvents", () => {
  const attributes = {
    specversion: "1.0",
    id: "6f1c",
    type: "dev.knative.apiserver.resource.update",
    source: "https://10.96.0.1:443",
    kind: "VirtualMachinePool",
    name: "web",
    namespace: "ci",
  };
  const pool = {
    apiVersion: "pool.kubevirt.io/v1beta1",
    kind: "VirtualMachinePool",
    metadata: { name: "web", namespace: "ci" },
  };
  const reference = { apiVersion: "kubevirt.io/v1", kind: "VirtualMachine", name: "web-3", namespace: "ci" };
  const binary = Object.fromEntries(Object.entries(attributes).map(([name, value]) => [`ce-${name}`, value]));
  const structured = { "content-type": "application/cloudevents+json; charset=utf-8" };
  const batch = { "content-type": "application/cloudevents-batch+json" };

  it.each<[string, HttpFields, readonly string[]]>([
    ["binary, Resource mode", { headers: binary, body: pool }, ["ci/web pool"]],
    [
      "binary, Reference mode",
      {
        headers: { ...binary, "ce-type": "dev.knative.apiserver.ref.delete", "ce-kind": "VirtualMachine" },
        body: reference,
      },
      ["ci/web vm"],
    ],
    [
      "structured, which API Gateway hands over in base64",
      { headers: structured, body: { ...attributes, data: pool }, base64: true },
      ["ci/web pool"],
    ],
    [
      "structured with data in base64",
      {
        headers: structured,
        body: { ...attributes, data_base64: Buffer.from(JSON.stringify(reference)).toString("base64") },
      },
      ["ci/web vm"],
    ],
    [
      "batch",
      {
        headers: batch,
        body: [
          { ...attributes, data: pool },
          { ...attributes, id: "2", data: reference },
        ],
        base64: true,
      },
      ["ci/web pool", "ci/web vm"],
    ],
    [
      "of a kind that does not matter",
      {
        headers: { ...binary, "ce-kind": "Pod" },
        body: { apiVersion: "v1", kind: "Pod", metadata: { name: "p", namespace: "ci" } },
      },
      [],
    ],
  ])("are taken: %s", async (_name, request, expected) => {
    const { answer, woken } = await post(request);
    expect([answer.statusCode, woken]).toEqual([202, expected]);
  });

  it("one bad of a batch does not lose the others", async () => {
    const { answer, woken } = await post({
      headers: batch,
      body: [{ id: "no version" }, { ...attributes, data: pool }],
    });
    expect([answer.statusCode, woken]).toEqual([202, ["ci/web pool"]]);
  });

  it("cannot name another cluster than the one whose secret let them in", async () => {
    const { mailbox } = await post({
      headers: { ...binary, "ce-cluster": "east" },
      body: { ...pool, cluster: "east" },
    });
    expect(mailbox.sent.map(({ wakeUp }) => wakeUp.cluster)).toEqual(["west"]);
  });

  it("above 256 KiB are refused", async () => {
    const { answer } = await post({ headers: binary, body: { ...pool, filler: "x".repeat(256 * 1024) } });
    expect(answer.statusCode).toBe(413);
  });
});

describe("what is no event", () => {
  it.each([
    ["text", { body: "hello" }],
    ["another object", { body: { kind: "Pod", apiVersion: "v1" } }],
    ["nothing", {}],
    ["a batch that is none", { headers: { "content-type": "application/cloudevents-batch+json" }, body: "{" }],
    ["only bad events", { body: anEventList({ stage: 7 }) }],
  ])("is answered with what is accepted: %s", async (_name, request) => {
    const { answer, woken } = await post(request);
    expect([answer.statusCode, woken]).toEqual([400, []]);
    expect(JSON.parse(answer.body).title).toContain("CloudEvent");
  });

  it.each([
    ["no token", { headers: { authorization: "" } }],
    ["another token", { headers: { authorization: "Bearer wrong" } }],
    ["an unknown cluster", { parameters: { cluster: "north" } }],
    ["another cluster's token", { parameters: { cluster: "east" } }],
  ])("is refused before its body is read: %s", async (_name, request) => {
    const { answer, woken } = await post({ body: anEventList(anAuditEvent()), ...request });
    expect([answer.statusCode, answer.headers["www-authenticate"], woken]).toEqual([401, "Bearer", []]);
  });

  it("reads an unknown name's entry once, and again a minute later at the earliest", async () => {
    const listener = aListener();
    const knock = () => post({ parameters: { cluster: "north" }, body: {} }, listener);
    await knock();
    await knock();
    expect(listener.entries).toEqual(["north"]);
    listener.clock.now += 60_000;
    await knock();
    await knock();
    expect(listener.entries).toEqual(["north", "north"]);
  });
});

it("asks the sender to come again when the queue is down", async () => {
  const listener = aListener();
  listener.mailbox.down.add("passes");
  const { answer } = await post({ body: anEventList(anAuditEvent()) }, listener);
  expect([answer.statusCode, answer.headers["retry-after"]]).toEqual([503, "1"]);
});
