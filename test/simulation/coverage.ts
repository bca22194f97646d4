/** What a run got to see, so that a simulation that has grown tame is noticed. Judges nothing. */
import { isRecord, parseJson } from "../../shared/planning/json.ts";
import {
  CLAIM_ANNOTATION,
  HEALING_ANNOTATION,
  POOL_FINALIZER,
  REVOKED_ANNOTATION,
} from "../../shared/planning/names.ts";
import { finalizersOf, isTerminating, type KubeObject, ownersOf, recordAt } from "./objects.ts";
import { isSame } from "./patches.ts";
import type { Change } from "./store.ts";
import type { Answered } from "./world.ts";

/** Every sight that is counted. Among the seeds of `npm test` each comes up. */
export const SIGHTS = [
  "a machine is created",
  "a machine is deleted",
  "a deletion is revoked",
  "a claim is written",
  "a claim is written while another pass is under way",
  "a claim is refused",
  "a machine is released",
  "a deleted machine is freed",
  "a detached machine is freed",
  "a machine is freed whose pool is gone",
  "a deleted machine of an illegal pool is freed",
  "a pool is let go",
  "a pool is refused at admission",
  "a revision is created",
  "a revision is pruned",
  "a machine is moved to another template",
  "a machine is healed",
  "a machine is healed again",
  "an instance is restarted",
  "a machine is asked to restart",
  "an instance is labelled",
  "a disk is guarded",
  "a disk outlives its machine",
  "a status is written",
  "a status is refused",
  "a name is taken",
  "a delete misses",
  "a late create lands",
  "a late create misses",
  "a late delete lands",
  "a late delete misses",
  "a late claim lands",
  "a late claim misses",
  "a pass waits for unfinished creates",
  "a pass waits at first contact",
  "a pass finds its pool paused",
  "a pass finds its pool illegal",
  "a pass holds beside another controller",
  "a pass holds beside another deployment",
  "a pass cannot read everything",
  "a pass finds its pool on its way out",
  "a pass has failures",
  "a pass runs out of looks or time",
  "a pass is killed",
  "two passes begin at once",
  "a pass begins beside the queues",
  "the instances restart",
  "a namespace goes",
  "an answer is lost",
  "a call takes effect after its time-out",
  "a call is refused",
] as const;
export type Sight = (typeof SIGHTS)[number];

/** How often each was seen. */
export type Coverage = ReadonlyMap<Sight, number>;

export function addCoverage(total: Map<Sight, number>, more: Coverage): void {
  for (const [sight, count] of more) total.set(sight, (total.get(sight) ?? 0) + count);
}

/** One line a sight, the never seen ones included. */
export function describeCoverage(coverage: Coverage): string {
  return SIGHTS.map((sight) => `${String(coverage.get(sight) ?? 0).padStart(9)}  ${sight}`).join("\n");
}

/** What a change of ours is. */
export function sightOfChange({ kind, before, after }: Change): Sight | undefined {
  if (kind.plural === "controllerrevisions")
    return after === undefined ? "a revision is pruned" : "a revision is created";
  if (kind.plural === "virtualmachineinstances") return sightOfInstance(before, after);
  if (kind.plural === "datavolumes") return sightOfDisk(before, after);
  if (kind.plural === "virtualmachinepools") return before === undefined ? undefined : sightOfPool(before, after);
  if (kind.plural !== "virtualmachines") return undefined;
  if (before === undefined) return "a machine is created";
  if (!isTerminating(before) && (after === undefined || isTerminating(after))) return "a machine is deleted";
  if (after !== undefined && annotationOf(after, REVOKED_ANNOTATION) !== annotationOf(before, REVOKED_ANNOTATION))
    return "a deletion is revoked";
  if (after !== undefined && ownersOf(after).length < ownersOf(before).length) return "a machine is released";
  if (after !== undefined && after["spec"] !== before["spec"] && !isSame(after["spec"], before["spec"]))
    return "a machine is moved to another template";
  if (after !== undefined && !isSame(after["status"], before["status"])) return "a machine is asked to restart";
  if (after !== undefined && finalizersOf(after).length === finalizersOf(before).length) return undefined;
  return isTerminating(before) ? "a deleted machine is freed" : "a detached machine is freed";
}

function sightOfInstance(before: KubeObject | undefined, after: KubeObject | undefined): Sight | undefined {
  if (after === undefined || isTerminating(after)) return "an instance is restarted";
  return isSame(before?.metadata.labels, after.metadata.labels) ? undefined : "an instance is labelled";
}

function sightOfDisk(before: KubeObject | undefined, after: KubeObject | undefined): Sight | undefined {
  if (before === undefined || after === undefined) return undefined;
  const [was, is] = [before, after].map((disk) => ownersOf(disk).some(({ controller }) => controller === true));
  if (was === true && is === false) return "a disk outlives its machine";
  return ownersOf(after).length > ownersOf(before).length ? "a disk is guarded" : undefined;
}

/** How often machines were healed, as the pool remembers it. */
function healingsOf(pool: KubeObject | undefined): number {
  const memory: unknown = parseJson((pool && annotationOf(pool, HEALING_ANNOTATION)) ?? "{}");
  const counts = isRecord(memory)
    ? Object.values(memory).map((entry) => Number(recordAt({ entry }, "entry")["count"]))
    : [];
  return Math.max(0, ...counts);
}

function sightOfPool(before: KubeObject, after: KubeObject | undefined): Sight {
  const [was, is] = [healingsOf(before), healingsOf(after)];
  if (is > was) return was === 0 ? "a machine is healed" : "a machine is healed again";
  const isFreed = after === undefined || finalizersOf(after).length < finalizersOf(before).length;
  if (isFreed && finalizersOf(before).includes(POOL_FINALIZER)) return "a pool is let go";
  if (after !== undefined && annotationOf(after, CLAIM_ANNOTATION) !== annotationOf(before, CLAIM_ANNOTATION))
    return "a claim is written";
  return "a status is written";
}

function annotationOf({ metadata }: KubeObject, name: string): string | undefined {
  return metadata.annotations?.[name];
}

/** What an answer of the API server says. */
export function sightOfAnswer({ request, response, isLate }: Answered): Sight | undefined {
  const isDone = response.status < 300;
  const { method, path } = request;
  if (path.includes("/virtualmachinepools/") && method === "PATCH") {
    if (path.includes("/status?")) return isDone ? undefined : "a status is refused";
    if (Array.isArray(request.body)) {
      if (isLate) return isDone ? "a late claim lands" : "a late claim misses";
      return isDone ? undefined : "a claim is refused";
    }
  }
  if (!path.includes("/virtualmachines")) return undefined;
  if (method === "POST") {
    if (isLate) return isDone ? "a late create lands" : "a late create misses";
    return isDone || !isRecord(response.body) ? undefined : "a name is taken";
  }
  if (method !== "DELETE") return undefined;
  if (isLate) return isDone ? "a late delete lands" : "a late delete misses";
  return isDone ? undefined : "a delete misses";
}
