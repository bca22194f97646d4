/** What the API server says when it does not do what it was asked: Kubernetes `Status` bodies. */
import type { Kind } from "./kinds.ts";
import type { Cause } from "./schema.ts";

export interface Details {
  readonly name?: string;
  readonly group?: string;
  readonly kind?: string;
  readonly causes?: readonly Cause[];
}

/** Ends the handling of a request; never leaves the cluster. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly status: number;
  readonly reason: string | undefined;
  readonly details: Details | undefined;
  /** Of the `Status`; only an expired list has any. */
  readonly metadata: Readonly<Record<string, unknown>>;

  constructor(status: number, reason: string | undefined, message: string, more: Partial<RefusalParts> = {}) {
    super(message);
    this.status = status;
    this.reason = reason;
    this.details = more.details;
    this.metadata = more.metadata ?? {};
  }
}

interface RefusalParts {
  readonly details: Details;
  readonly metadata: Readonly<Record<string, unknown>>;
}

/** The body of the answer. */
export function statusBody({ status, reason, message, details, metadata }: Refusal) {
  return {
    kind: "Status",
    apiVersion: "v1",
    metadata,
    status: "Failure",
    message,
    ...(reason === undefined ? {} : { reason }),
    ...(details === undefined ? {} : { details }),
    code: status,
  };
}

function resource({ group, plural }: Kind, name: string): Details {
  return { name, ...(group === "" ? {} : { group }), kind: plural };
}

function resourceName({ group, plural }: Kind): string {
  return group === "" ? plural : `${plural}.${group}`;
}

export function badRequest(message: string): Refusal {
  return new Refusal(400, "BadRequest", message);
}

export function notFound(kind: Kind, name: string): Refusal {
  return new Refusal(404, "NotFound", `${resourceName(kind)} "${name}" not found`, { details: resource(kind, name) });
}

export function alreadyExists(kind: Kind, name: string, isTerminating: boolean): Refusal {
  const message = `${isTerminating ? "object is being deleted: " : ""}${resourceName(kind)} "${name}" already exists`;
  return new Refusal(409, "AlreadyExists", message, { details: resource(kind, name) });
}

export function conflict(kind: Kind, name: string): Refusal {
  const why = "the object has been modified; please apply your changes to the latest version and try again";
  const message = `Operation cannot be fulfilled on ${resourceName(kind)} "${name}": ${why}`;
  return new Refusal(409, "Conflict", message, { details: resource(kind, name) });
}

/** A body's UID is that of another object. */
export function failedUid(kind: Kind, name: string): Refusal {
  const message = `Operation cannot be fulfilled on ${resourceName(kind)} "${name}": Precondition failed`;
  return new Refusal(409, "Conflict", message, { details: resource(kind, name) });
}

/** A surprise: here the details name the kind, not the resource. */
export function failedPrecondition(kind: Kind, name: string, field: string): Refusal {
  const { group } = kind;
  const why = `the ${field} in the precondition does not match the ${field} in record`;
  const details = { name, ...(group === "" ? {} : { group }), kind: kind.kind };
  return new Refusal(409, "Conflict", `Operation cannot be fulfilled on ${kind.kind} "${name}": ${why}`, { details });
}

export function invalid(kind: Pick<Kind, "group" | "kind">, name: string, causes: readonly Cause[]): Refusal {
  const { group } = kind;
  const details = {
    ...(name === "" ? {} : { name }),
    ...(group === "" ? {} : { group }),
    ...(kind.kind === "" ? {} : { kind: kind.kind }),
    causes,
  };
  const told = causes.map(({ field, message }) => `${field}: ${message}`).join(", ");
  return new Refusal(422, "Invalid", `${kind.kind} "${name}" is invalid: ${told}`, { details });
}

/** A surprise: a missing resourceVersion is told of the resource, not of the kind. */
export function unversioned(kind: Kind, name: string): Refusal {
  const causes = [
    { reason: "FieldValueInvalid", field: "metadata.resourceVersion", message: "must be specified for an update" },
  ];
  return invalid({ group: kind.group, kind: kind.plural }, name, causes);
}

export function refusedPatch(): Refusal {
  const message = "the server rejected our request due to an error in our request";
  return new Refusal(422, "Invalid", message, { details: {} });
}

/** The patched object cannot even be read. */
export function unreadablePatch(): Refusal {
  return invalid({ group: "", kind: "" }, "", [
    { reason: "FieldValueInvalid", field: "patch", message: "not readable" },
  ]);
}

export function missingNamespace(name: string): Refusal {
  return new Refusal(404, "NotFound", `namespaces "${name}" not found`, { details: { name, kind: "namespaces" } });
}

/** Nothing can be made in a namespace that is on its way out. */
export function endingNamespace(kind: Kind, name: string, namespace: string): Refusal {
  const message = `namespace ${namespace} is being terminated`;
  const causes = [{ reason: "NamespaceTerminating", message, field: "metadata.namespace" }];
  const why = `unable to create new content in namespace ${namespace} because it is being terminated`;
  const details = { ...resource(kind, name), causes };
  return new Refusal(403, "Forbidden", `${resourceName(kind)} "${name}" is forbidden: ${why}`, { details });
}

export function expired(token: string): Refusal {
  const message = "The provided continue parameter is too old to display a consistent list result.";
  return new Refusal(410, "Expired", message, { metadata: { continue: token } });
}
