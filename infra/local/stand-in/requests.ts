/** Single requests about one kind of object: paths, a deadline, and refusals as errors. */
import * as z from "zod";
import type { ApiRequest, Connection } from "../../../shared/clusters/connection.ts";
import type { Kind, Stored } from "./objects.ts";

const REQUEST_TIMEOUT_MS = 15_000;
/** As on a real cluster, where `kubectl get --show-managed-fields` tells KubeVirt's writes from the pool controller's. */
const FIELD_MANAGER = "virt-controller";

const refusalSchema = z
  .object({ reason: z.string().default(""), message: z.string().default("") })
  .catch({ reason: "", message: "" });

/** The API server said no. */
export class RefusedError extends Error {
  override readonly name = "RefusedError";
  readonly kind = "refused";
  readonly status: number;
  readonly reason: string;

  constructor(what: string, status: number, body: unknown) {
    const { reason, message } = refusalSchema.parse(body);
    super(`${what}: ${status} ${reason} ${message}`);
    this.status = status;
    this.reason = reason;
  }

  /** Somebody else wrote first, or the object went meanwhile: the next look sorts it out. */
  get isStale(): boolean {
    return this.status === 409 || this.status === 404;
  }
}

/** Sends one request and returns the body of the answer; throws `RefusedError`, or what the network threw. */
export type Send = (what: string, request: Omit<ApiRequest, "signal">) => Promise<unknown>;

export function createSend(connection: Connection, signal: AbortSignal): Send {
  return async (what, request) => {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(REQUEST_TIMEOUT_MS)]);
    const path = request.method === "GET" ? request.path : withManager(request.path);
    const { status, body } = await connection.send({ ...request, path, signal: deadline });
    if (status < 200 || status > 299) throw new RefusedError(what, status, body);
    return body;
  };
}

function withManager(path: string): string {
  return `${path}${path.includes("?") ? "&" : "?"}fieldManager=${FIELD_MANAGER}`;
}

/** Where the kind is served; in all namespaces when none is named. */
export function kindPath<T extends Stored>(kind: Kind<T>, namespace = ""): string {
  const root = kind.apiVersion === "v1" ? "/api/v1" : `/apis/${kind.apiVersion}`;
  return namespace === "" ? `${root}/${kind.plural}` : `${root}/namespaces/${namespace}/${kind.plural}`;
}

export function objectPath<T extends Stored>(kind: Kind<T>, { metadata }: T, subresource?: string): string {
  const path = `${kindPath(kind, metadata.namespace)}/${metadata.name}`;
  return subresource === undefined ? path : `${path}/${subresource}`;
}
