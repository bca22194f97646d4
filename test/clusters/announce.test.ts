import { expect, it } from "vitest";
import { announce } from "../../shared/clusters/announce.ts";
import { oneFailureOfEach } from "../../shared/clusters/reconcile-pool.ts";
import { isRecord } from "../../shared/planning/json.ts";
import { parsePool } from "../../shared/planning/model.ts";
import type { Announcement } from "../../shared/planning/status.ts";
import { aCluster, aWire, linesOf, ok, on, type Route, refusal, type Wire, writesOf } from "../support/transport.ts";
import { aPool, EVENT_LIST, NOW } from "../support/transport-objects.ts";

const CREATE = `POST ${EVENT_LIST}`;
const ALREADY = on(CREATE, refusal(409, "AlreadyExists"));

function anAnnouncement(fields: Partial<Announcement> = {}): Announcement {
  return { type: "Normal", reason: "SuccessfulCreate", message: "Created VM ci/web-0", key: "k", ...fields };
}

function several(count: number, reason = "SuccessfulCreate"): readonly Announcement[] {
  return Array.from({ length: count }, (_, index) => anAnnouncement({ reason, message: `${reason} ${index}` }));
}

/** Tells the announcements to a scripted cluster; returns how many could not be written. */
async function tell(announcements: readonly Announcement[], ...routes: readonly Route[]) {
  const pool = parsePool(aPool());
  if (pool === undefined) throw new TypeError("the test's own pool is not valid");
  const wire = aWire(...routes);
  const lost = await announce(aCluster(wire).cluster, { pool, poolVersion: "v1beta1", announcements, now: NOW + 123 });
  return { wire, lost };
}

/** A field of every event that was written. */
function valuesOf(wire: Wire, key: string): readonly unknown[] {
  return writesOf(wire).map(({ body }) => (isRecord(body) ? body[key] : undefined));
}

/** Names of the events of these announcements. */
async function namesOf(...announcements: readonly Announcement[]): Promise<readonly unknown[]> {
  const { wire } = await tell(announcements, on(CREATE, ok({})));
  return valuesOf(wire, "metadata").map((metadata) => (isRecord(metadata) ? metadata["name"] : undefined));
}

it("writes an event about the pool as the reference does", async () => {
  const { wire, lost } = await tell([anAnnouncement()], on(CREATE, ok({})));

  expect(lost).toBe(0);
  expect(writesOf(wire).map(({ body }) => body)).toEqual([
    {
      apiVersion: "v1",
      kind: "Event",
      metadata: { name: expect.stringMatching(/^web\.[0-9a-f]{16}$/), namespace: "ci" },
      involvedObject: {
        apiVersion: "pool.kubevirt.io/v1beta1",
        kind: "VirtualMachinePool",
        namespace: "ci",
        name: "web",
        uid: "uid-web",
        resourceVersion: "100",
      },
      type: "Normal",
      reason: "SuccessfulCreate",
      message: "Created VM ci/web-0",
      source: { component: "virtualmachinepool-controller" },
      reportingComponent: "virtualmachinepool-controller",
      reportingInstance: "",
      firstTimestamp: "2026-05-01T12:00:00Z",
      lastTimestamp: "2026-05-01T12:00:00Z",
      count: 1,
    },
  ]);
});

it("says nothing when there is nothing to say", async () => {
  expect((await tell([])).wire.sent).toEqual([]);
});

it("gives an announcement that is told again the same name, and another one another", async () => {
  const base = anAnnouncement();
  const others = [{ type: "Warning" }, { reason: "R" }, { message: "m" }, { key: "other" }] as const;
  const names = await namesOf(base, base, ...others.map((fields) => anAnnouncement(fields)));

  expect(names[0]).toBe(names[1]);
  expect(new Set(names).size).toBe(5);
});

it("tells ten of a kind one by one", async () => {
  const { wire } = await tell(several(10), on(CREATE, ok({})));

  expect(valuesOf(wire, "message")).toEqual(several(10).map(({ message }) => message));
});

it("tells the eleventh and later of a kind in one event", async () => {
  const { wire } = await tell(several(250), on(CREATE, ok({})));

  const messages = valuesOf(wire, "message");
  expect(messages).toHaveLength(11);
  expect(messages.at(-1)).toBe("240 more, the last of them: SuccessfulCreate 249");
});

it("counts the kinds apart", async () => {
  const { wire } = await tell([...several(10), ...several(10, "SuccessfulDelete")], on(CREATE, ok({})));

  expect(wire.sent).toHaveLength(20);
});

it("cuts a message to what the API takes", async () => {
  const { wire } = await tell([anAnnouncement({ message: "x".repeat(5_000) })], on(CREATE, ok({})));

  expect(valuesOf(wire, "message")).toEqual([`${"x".repeat(999)}…`]);
});

it("leaves an ordinary event that was told before as it is", async () => {
  const { wire, lost } = await tell([anAnnouncement()], ALREADY);

  expect(linesOf(wire)).toEqual([CREATE]);
  expect(lost).toBe(0);
});

it.each([
  [{ count: 2 }, 3],
  [{}, 2],
  [{ count: "many" }, 2],
])("counts a warning up that is told again: %j", async (existing, count) => {
  const [name] = await namesOf(anAnnouncement({ type: "Warning" }));
  const { wire, lost } = await tell(
    [anAnnouncement({ type: "Warning" })],
    ALREADY,
    on(`GET ${EVENT_LIST}/${name}`, ok(existing)),
    on(`PATCH ${EVENT_LIST}/${name}`, ok({})),
  );

  expect(lost).toBe(0);
  expect(wire.sent.at(-1)).toMatchObject({
    contentType: "application/merge-patch+json",
    body: { count, lastTimestamp: "2026-05-01T12:00:00Z" },
  });
});

it("says how many could not be written, and fails nothing for it", async () => {
  const { wire, lost } = await tell(several(3), on(CREATE, ok({}), refusal(403, "Forbidden"), ok({})));

  expect(lost).toBe(1);
  expect(wire.sent).toHaveLength(3);
});

it("tells each kind of failure once a pass, the first, and everything else as often as it was", () => {
  const told = (reason: string, message: string) => ({ type: "Warning", reason, message, key: "" }) as const;
  const all = [
    told("KeptDiskUnfit", "disk-1"),
    told("KeptDiskUnfit", "disk-2"),
    told("FailedUpdate", "web-0"),
    told("FailedUpdate", "disk-0"),
    told("FailedDelete", "web-3"),
    told("FailedUpdate", "error during VM update"),
  ];
  expect(oneFailureOfEach(all).map(({ message }) => message)).toEqual(["disk-1", "disk-2", "web-0", "web-3"]);
});

it("does not count up a warning that is to be told once", async () => {
  const wire = aWire(on(`POST ${EVENT_LIST}`, refusal(409, "AlreadyExists")));
  const pool = parsePool(aPool());
  if (pool === undefined) throw new TypeError("the test's own pool is not valid");
  const overlap = { type: "Warning", reason: "SelectorOverlap", message: "b", key: "1", once: true } as const;

  const input = { pool, poolVersion: "v1beta1", announcements: [overlap], now: NOW };
  expect(await announce(aCluster(wire).cluster, input)).toBe(0);
  expect(wire.sent).toHaveLength(1);
});
