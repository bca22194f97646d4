import { describe, expect, it } from "vitest";
import { createAdmission } from "../../functions/admission.ts";
import { hashSecret } from "../../shared/events/signatures.ts";
import { aContext } from "../support/handlers.ts";
import { aListener, anHttpEvent, PATH_TOKEN } from "../support/http-events.ts";
import { NOW } from "../support/transport-objects.ts";

const POOLS = { group: "pool.kubevirt.io", version: "v1beta1", resource: "virtualmachinepools" };
const VMS = { group: "kubevirt.io", version: "v1", resource: "virtualmachines" };
const LABELS = { app: "web" };

function aPool(spec: object = {}, metadata: object = {}) {
  return {
    apiVersion: "pool.kubevirt.io/v1beta1",
    kind: "VirtualMachinePool",
    metadata: { name: "web", namespace: "ci", uid: "uid-web", resourceVersion: "1", generation: 1, ...metadata },
    spec: {
      selector: { matchLabels: LABELS },
      virtualMachineTemplate: {
        metadata: { labels: LABELS },
        spec: { template: { metadata: { labels: LABELS }, spec: {} } },
      },
      ...spec,
    },
  };
}

function aReview(request: object = {}) {
  const given = {
    uid: "review-1",
    resource: POOLS,
    name: "web",
    namespace: "ci",
    operation: "CREATE",
    object: aPool(),
    ...request,
  };
  return { apiVersion: "admission.k8s.io/v1", kind: "AdmissionReview", request: given };
}

async function review(body: unknown, { cluster = "west", token = PATH_TOKEN } = {}) {
  const listener = aListener();
  const event = anHttpEvent({ parameters: { cluster, token }, body });
  const answer = await createAdmission(listener.deps)(event, aContext());
  return { ...listener, answer, body: JSON.parse(answer.body) };
}

describe("a pool that is reviewed", () => {
  it("is let through when it is legal, with wake-ups now and later, for the write follows the notice", async () => {
    const { answer, body, mailbox } = await review(aReview());
    expect(answer.statusCode).toBe(200);
    expect(body).toEqual({
      apiVersion: "admission.k8s.io/v1",
      kind: "AdmissionReview",
      response: { uid: "review-1", allowed: true },
    });
    const wakeUp = { version: 1, cluster: "west", namespace: "ci", name: "web", cause: "pool", attempt: 0 };
    expect(mailbox.sent).toEqual([
      { queue: "passes", wakeUp, seenAtMs: NOW },
      { queue: "late", wakeUp, seenAtMs: NOW },
    ]);
  });

  it.each([
    [
      "an unknown operator",
      { selector: { matchExpressions: [{ key: "a", operator: "Foo" }] } },
      "spec.selector.matchExpressions[0].operator",
      "Foo",
    ],
    ["a selector that does not match", { selector: { matchLabels: { app: "db" } } }, "spec.selector", "app=db"],
    ["no selector", { selector: null }, "spec.selector", "missing selector"],
    ["a number without %", { maxUnavailable: "50" }, "spec.maxUnavailable", "must end with %"],
    ["a word before %", { maxUnavailable: "half%" }, "spec.maxUnavailable", '"half"'],
    ["more than all", { maxUnavailable: "101%" }, "spec.maxUnavailable", "between 1 and 100"],
    ["none", { maxUnavailable: 0 }, "spec.maxUnavailable", "greater than 0"],
    [
      "two update strategies",
      { updateStrategy: { proactive: {}, unmanaged: {} } },
      "spec.updateStrategy",
      "unmanaged, proactive",
    ],
    [
      "two scale-in strategies",
      { scaleInStrategy: { opportunistic: {}, unmanaged: {} } },
      "spec.scaleInStrategy",
      "unmanaged, opportunistic",
    ],
  ])("is refused with field and reason for %s, and wakes nobody", async (_name, spec, field, words) => {
    const { answer, body, mailbox } = await review(aReview({ object: aPool(spec) }));
    expect(answer.statusCode).toBe(200);
    expect(body.response).toMatchObject({ allowed: false, status: { code: 422, reason: "Invalid" } });
    const causes: { field: string; message: string }[] = body.response.status.details.causes;
    expect(causes.map((cause) => cause.field)).toContain(field);
    expect(causes.map(({ message }) => message).join()).toContain(words);
    expect(mailbox.sent).toEqual([]);
  });

  it("keeps its selector, whatever else an update changes", async () => {
    const selector = { matchLabels: LABELS, matchExpressions: [{ key: "app", operator: "Exists" }] };
    const changed = await review(aReview({ operation: "UPDATE", object: aPool({ selector }), oldObject: aPool() }));
    expect(changed.body.response.status.details.causes).toEqual([
      expect.objectContaining({ field: "spec.selector", message: expect.stringContaining("immutable") }),
    ]);
    const same = await review(
      aReview({ operation: "UPDATE", object: aPool({ replicas: 9 }, { generation: 2 }), oldObject: aPool() }),
    );
    expect(same.body.response.allowed).toBe(true);
  });

  it.each([
    ["no template", { virtualMachineTemplate: null }, "spec.virtualMachineTemplate"],
    ["an empty template (D30)", { virtualMachineTemplate: {} }, "spec.virtualMachineTemplate.spec.template"],
  ])("is refused with a message that says what to write for %s", async (_name, spec, field) => {
    const { body } = await review(aReview({ object: aPool(spec) }));
    const message = expect.stringMatching(/^missing virtual machine template: write /);
    expect(body.response.status.details.causes).toEqual([{ reason: "FieldValueInvalid", field, message }]);
  });

  it("is refused when it is of a version that is not known", async () => {
    const { body } = await review(aReview({ resource: { ...POOLS, version: "v2" } }));
    expect(body.response.status.message).toContain("expected resource version v1beta1 or v1alpha1, but got v2");
    const older = await review(aReview({ resource: { ...POOLS, version: "v1alpha1" } }));
    expect(older.body.response.allowed).toBe(true);
  });

  it("is refused when an update comes without the old pool", async () => {
    for (const oldObject of [undefined, null]) {
      const { body } = await review(aReview({ operation: "UPDATE", oldObject }));
      expect(body.response.status.message).toContain("could not fetch the old pool");
    }
  });

  it("is let through with warnings for what is probably not meant", async () => {
    const { body, mailbox } = await review(aReview({ object: aPool({ maxUnavailable: "100%" }) }));
    expect(body.response).toEqual({
      uid: "review-1",
      allowed: true,
      warnings: [expect.stringContaining("spec.maxUnavailable: 100% lets a roll-out take all machines down at once")],
    });
    expect(mailbox.sent).toHaveLength(2);
  });

  it("is never refused on its way out (D20)", async () => {
    const object = aPool({ maxUnavailable: 0 }, { deletionTimestamp: "2026-05-01T12:00:00Z", finalizers: [] });
    const { body, mailbox } = await review(aReview({ operation: "UPDATE", object, oldObject: object }));
    expect(body.response.allowed).toBe(true);
    expect(mailbox.sent).toEqual([]);
  });

  it("costs nothing when it is a dry run", async () => {
    const { body, mailbox } = await review(aReview({ dryRun: true }));
    expect(body.response.allowed).toBe(true);
    expect(mailbox.sent).toEqual([]);
  });
});

describe("a notice", () => {
  const machine = (ready: string) => ({
    metadata: { name: "web-0", namespace: "ci", uid: "u", resourceVersion: "1" },
    status: { conditions: [{ type: "Ready", status: ready }] },
  });

  it.each([
    { of: "a machine", subResource: undefined, cause: "vm" },
    { of: "a machine's status, which asks for no wide look,", subResource: "status", cause: "instance" },
  ])("of $of wakes its pool and judges nothing", async ({ subResource, cause }) => {
    const request = { resource: VMS, name: "web-0", operation: "UPDATE", ...(subResource && { subResource }) };
    const objects = { object: machine("True"), oldObject: machine("False") };
    const { body, mailbox } = await review(aReview({ ...request, ...objects }));
    expect(body.response.allowed).toBe(true);
    expect(mailbox.sent.map(({ queue, wakeUp }) => [queue, wakeUp.name, wakeUp.cause])).toEqual([
      ["passes", "web", cause],
      ["late", "web", cause],
    ]);
  });

  it("of a collection has no name: the old object has it", async () => {
    const { mailbox } = await review(
      aReview({ resource: VMS, name: "", operation: "DELETE", object: null, oldObject: machine("True") }),
    );
    expect(mailbox.sent.map(({ wakeUp }) => wakeUp.name)).toEqual(["web", "web"]);
  });

  const ourselves = { username: "functions", groups: ["vmpool-functions"] };

  it("of our own write to a machine wakes nobody: the pass looks again by itself", async () => {
    const { mailbox } = await review(
      aReview({
        resource: VMS,
        name: "web-0",
        operation: "DELETE",
        object: null,
        oldObject: machine("True"),
        userInfo: ourselves,
      }),
    );
    expect(mailbox.sent).toEqual([]);
  });

  const claimed = (nonce: string) => ({
    ...aPool(),
    metadata: { ...aPool().metadata, annotations: { "vmpool-functions/pass": `{"nonce":"${nonce}"}` } },
  });

  it.each([
    ["our own claim wakes nobody", { userInfo: ourselves }, []],
    ["a claim that somebody else writes wakes the pool", {}, ["passes", "late"]],
    ["a scale of our own wakes the pool", { userInfo: ourselves, subResource: "scale" }, ["passes", "late"]],
    ["a status of our own wakes the pool", { userInfo: ourselves, subResource: "status" }, ["passes", "late"]],
  ])("of %s", async (_what, fields, queues) => {
    const { mailbox } = await review(aReview({ object: claimed("2"), oldObject: claimed("1"), ...fields }));
    expect(mailbox.sent.map(({ queue }) => queue)).toEqual(queues);
  });

  it("lets the write through when the queue is down", async () => {
    const listener = aListener();
    listener.mailbox.down.add("passes").add("late");
    const event = anHttpEvent({ parameters: { cluster: "west", token: PATH_TOKEN }, body: aReview() });
    const { statusCode, body } = await createAdmission(listener.deps)(event, aContext());
    expect([statusCode, JSON.parse(body).response.allowed]).toEqual([200, true]);
    expect(listener.log.at("error")).toEqual(["wake-ups could not be sent"]);
  });
});

it("is let in with a token that is younger than what was read of the registration", async () => {
  const listener = aListener({ west: { path: [hashSecret("old")] } });
  const ask = async (token: string) => {
    const event = anHttpEvent({ parameters: { cluster: "west", token }, body: aReview() });
    return (await createAdmission(listener.deps)(event, aContext())).statusCode;
  };
  expect(await ask("old")).toBe(200);
  listener.registered.west = { path: [hashSecret("new")] };
  listener.clock.now += 60_000;
  expect(await ask("new")).toBe(200);
  expect(await ask("old")).toBe(401);
});

describe("a request that is no review of this cluster", () => {
  it.each<[string, { token?: string; cluster?: string }]>([
    ["another token", { token: "wrong" }],
    ["an unknown cluster", { cluster: "north" }],
    ["a cluster without tokens", { cluster: "east" }],
    ["a hash in the place of the token", { token: "0".repeat(64) }],
  ])("is refused for %s, before its body is read, and says no secret", async (_name, target) => {
    const { answer, mailbox, log } = await review("not json", target);
    expect(answer.statusCode).toBe(401);
    expect(mailbox.sent).toEqual([]);
    expect(JSON.stringify([answer, log.lines])).not.toContain(target.token ?? "no token given");
  });

  it.each([
    ["text", "not json", 400],
    ["another kind", { ...aReview(), kind: "Pod" }, 400],
    ["no request", { apiVersion: "admission.k8s.io/v1", kind: "AdmissionReview" }, 400],
    ["too much", `"${"x".repeat(3 * 1024 * 1024)}"`, 413],
  ])("is answered with what is wrong for %s", async (_name, body, status) => {
    const { answer, body: problem } = await review(body);
    expect(answer.statusCode).toBe(status);
    expect(problem.title).toMatch(/AdmissionReview|exceeds/);
  });
});
