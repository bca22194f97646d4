import { describe, expect, it } from "vitest";
import { boundedReplicas, judgeCurrent, judgeRequest, type ScaleRequest } from "../../shared/planning/scale-request.ts";

const NOW = Date.parse("2026-05-01T12:00:00Z");
const aRequest = (fields: Partial<ScaleRequest> = {}): ScaleRequest => ({ replicas: 5, requestedAt: NOW, ...fields });
const judgeAt = (fields: Partial<ScaleRequest>, isReplay = false) =>
  judgeRequest(aRequest(fields), { now: NOW, isReplay })?.reason;

describe("a request to scale", () => {
  it.each([
    [0, undefined],
    [-60_000, undefined],
    [-60_001, "stale"],
    [60_000, undefined],
    [60_001, "premature"],
  ])("made %i ms from now is %s", (offsetMs, reason) => {
    expect(judgeAt({ requestedAt: NOW + offsetMs })).toBe(reason);
  });

  it("is told how far from now it was made", () => {
    const messageAt = (offsetMs: number) =>
      judgeRequest(aRequest({ requestedAt: NOW + offsetMs }), { now: NOW, isReplay: false })?.message;
    expect(messageAt(-61_400)).toBe("it was made 61 s ago, more than 60 s");
    expect(messageAt(75_000)).toBe("it was made 75 s in the future");
  });

  it("does not count when it was replayed, however fresh it looks", () => {
    expect(judgeAt({}, true)).toBe("replayed");
  });

  it("does not count when its bounds exclude each other", () => {
    expect(judgeAt({ minReplicas: 3, maxReplicas: 2 })).toBe("contradictory");
    expect(judgeAt({ minReplicas: 3, maxReplicas: 3 })).toBeUndefined();
  });

  it.each<[Partial<ScaleRequest>, number]>([
    [{}, 5],
    [{ minReplicas: 7 }, 7],
    [{ maxReplicas: 3 }, 3],
    [{ minReplicas: 5, maxReplicas: 5 }, 5],
    [{ replicas: 0, maxReplicas: 3 }, 0],
  ])("%j comes to %i machines", (fields, replicas) => {
    expect(boundedReplicas(aRequest(fields))).toBe(replicas);
  });

  it.each<[Partial<ScaleRequest>, number, string | undefined]>([
    [{}, 99, undefined],
    [{ expectedReplicas: 3 }, 3, undefined],
    [{ expectedReplicas: 3 }, 4, "unexpected"],
    [{ expectedReplicas: 0 }, 0, undefined],
    [{ expectedReplicas: 3 }, 5, undefined],
    [{ expectedReplicas: 3, maxReplicas: 4 }, 4, undefined],
    [{ expectedReplicas: 3, maxReplicas: 4 }, 5, "unexpected"],
  ])("%j of a pool that asks for %i is %s", (fields, current, reason) => {
    expect(judgeCurrent(aRequest(fields), current)?.reason).toBe(reason);
  });
});
