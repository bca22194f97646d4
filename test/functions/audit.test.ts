import { gunzipSync, gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { createAudit } from "../../functions/audit.ts";
import { aContext, aLog, aMailbox } from "../support/handlers.ts";
import { aLogDelivery, anAuditEvent } from "../support/log-entries.ts";
import { NOW } from "../support/transport-objects.ts";

const VM_REF = { resource: "virtualmachines", apiGroup: "kubevirt.io", name: "web-0" };

function anAudit(clusters: Readonly<Record<string, string>> = {}) {
  const [mailbox, log] = [aMailbox(), aLog()];
  const handler = createAudit(() => ({ clusters, wakeUps: mailbox, now: () => NOW, logger: log }));
  return { mailbox, log, run: (event: unknown) => handler(event, aContext()) };
}

describe("the audit log of EKS", () => {
  it("wakes the pool that a finished write is about, in the cluster of the log group", async () => {
    const { mailbox, run } = anAudit();
    expect(await run(aLogDelivery([anAuditEvent()]))).toEqual({ woken: 1, unreadable: 0 });
    expect(mailbox.sent).toEqual([
      {
        queue: "passes",
        seenAtMs: NOW,
        wakeUp: { version: 1, cluster: "west", namespace: "ci", name: "web", cause: "pool", attempt: 0 },
      },
    ]);
  });

  it("wakes a pool once a cause, however many lines there are of it", async () => {
    const { mailbox, run } = anAudit();
    const machines = [0, 1, 2].map((ordinal) => anAuditEvent({}, { ...VM_REF, name: `web-${ordinal}` }));
    await run(aLogDelivery([...machines, anAuditEvent(), anAuditEvent()]));
    expect(mailbox.sent.map(({ wakeUp }) => wakeUp.cause)).toEqual(["vm", "pool"]);
  });

  it("is read line by line: what is no audit event loses none of the others, and is counted", async () => {
    const { mailbox, log, run } = anAudit();
    const lines = ["I0501 12:00:00.000000 text of another log", "{", { stage: 7 }, anAuditEvent()];
    expect(await run(aLogDelivery(lines))).toEqual({ woken: 1, unreadable: 3 });
    expect([mailbox.sent.length, log.at("warn")]).toEqual([1, ["events could not be read"]]);
  });

  it.each([
    ["a read", anAuditEvent({ verb: "list" })],
    ["our own claim", anAuditEvent({ user: { groups: ["vmpool-functions"] } })],
    ["our own write to a machine", anAuditEvent({ user: { groups: ["vmpool-functions"] } }, VM_REF)],
  ])("wakes nobody for %s", async (_what, event) => {
    const { mailbox, run } = anAudit();
    expect(await run(aLogDelivery([event]))).toEqual({ woken: 0, unreadable: 0 });
    expect(mailbox.sent).toEqual([]);
  });

  it("says nothing when CloudWatch Logs only tries whether somebody is there", async () => {
    const { mailbox, log, run } = anAudit();
    const control = aLogDelivery(["CWL CONTROL MESSAGE: Checking health of destination"], {
      messageType: "CONTROL_MESSAGE",
      logGroup: "",
    });
    expect(await run(control)).toEqual({ woken: 0, unreadable: 0 });
    expect([mailbox.sent, log.lines]).toEqual([[], []]);
  });
});

describe("the cluster of a log group", () => {
  const told = async (logGroup: string, clusters: Readonly<Record<string, string>> = {}) => {
    const { mailbox, log, run } = anAudit(clusters);
    await run(aLogDelivery([anAuditEvent()], { logGroup }));
    return { cluster: mailbox.sent[0]?.wakeUp.cluster, warned: log.at("warn") };
  };

  it("is what the settings say", async () => {
    const clusters = { "/aws/eks/Prod_EU/cluster": "prod-eu" };
    expect(await told("/aws/eks/Prod_EU/cluster", clusters)).toEqual({ cluster: "prod-eu", warned: [] });
  });

  it("is EKS' own name for it where they say nothing", async () => {
    const clusters = { "/aws/eks/other/cluster": "prod-eu" };
    expect(await told("/aws/eks/west/cluster", clusters)).toEqual({ cluster: "west", warned: [] });
  });

  it.each([
    "/aws/lambda/west",
    "/aws/eks/west/cluster/more",
    "/aws/eks/Prod_EU/cluster",
    "/aws/eks//cluster",
    "__proto__",
  ])("is none of ours, and the log says so: %s", async (logGroup) => {
    expect(await told(logGroup)).toEqual({ cluster: undefined, warned: ["log group is of no cluster"] });
  });

  it("cannot be another one by what a line says", async () => {
    const { mailbox, run } = anAudit();
    await run(aLogDelivery([anAuditEvent({ cluster: "east" }, { cluster: "east" })]));
    expect(mailbox.sent.map(({ wakeUp }) => wakeUp.cluster)).toEqual(["west"]);
  });
});

describe("what could not be sent", () => {
  it("is thrown, so that Lambda invokes again", async () => {
    const { mailbox, log, run } = anAudit();
    mailbox.down.add("passes");
    await expect(run(aLogDelivery([anAuditEvent()]))).rejects.toMatchObject({ name: "UnsentError" });
    expect(log.at("error")).toContain("wake-ups could not be sent");
    mailbox.down.clear();
    expect(await run(aLogDelivery([anAuditEvent()]))).toEqual({ woken: 1, unreadable: 0 });
  });
});

describe("what is no log data", () => {
  // In the form of a delivery, so that nothing but its size is wrong.
  const ofBytes = (bytes: number) => {
    const text = gunzipSync(Buffer.from(aLogDelivery([anAuditEvent()]).awslogs.data, "base64")).toString();
    return gzipSync(text.padEnd(bytes)).toString("base64");
  };
  const large = ofBytes(16 * 1024 * 1024 + 1);

  it("is not what inflates to 16 MiB", async () => {
    expect(await anAudit().run({ awslogs: { data: ofBytes(16 * 1024 * 1024) } })).toEqual({ woken: 1, unreadable: 0 });
  });

  it.each([
    ["text", "hello"],
    ["nothing", ""],
    ["compressed text", gzipSync("hello").toString("base64")],
    ["another object", gzipSync("{}").toString("base64")],
    ["cut short", aLogDelivery([anAuditEvent()]).awslogs.data.slice(0, 100)],
    ["what inflates to more than 16 MiB", large],
  ])("is logged and not tried again: %s", async (_what, data) => {
    const { mailbox, log, run } = anAudit();
    expect(await run({ awslogs: { data } })).toEqual({ woken: 0, unreadable: 0 });
    expect([mailbox.sent, log.at("error")]).toEqual([[], ["log data could not be read"]]);
  });

  it("is an error of the trigger where it is not even the event of a subscription", async () => {
    await expect(anAudit().run({ Records: [] })).rejects.toMatchObject({ name: "EventError" });
  });
});
