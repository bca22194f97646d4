/** CloudEvents 1.0 over HTTP, in the three modes of its binding, as Knative's ApiServerSource and others send them. */
import * as z from "zod";
import { isRecord, parseJson } from "../planning/json.ts";
import { changedKind, type Reading } from "./changes.ts";

const BATCH_MAX = 1_000;

/** The attributes that we read; extension names are lower case in every mode. */
const attributesSchema = z.object({
  specversion: z.literal("1.0"),
  id: z.string().min(1),
  source: z.string().min(1),
  type: z.string().min(1),
  kind: z.string().optional(),
  apiversion: z.string().optional(),
  name: z.string().optional(),
  namespace: z.string().optional(),
  data: z.unknown().optional(),
  data_base64: z.string().optional(),
});

/** Of an object as a whole (Resource mode) or of a reference to one (Reference mode). */
const subjectSchema = z.object({
  apiVersion: z.string().optional(),
  kind: z.string().optional(),
  name: z.string().optional(),
  namespace: z.string().optional(),
  metadata: z.object({ name: z.string().optional(), namespace: z.string().optional() }).nullish(),
});

const PLURALS: Readonly<Record<string, string>> = {
  VirtualMachinePool: "virtualmachinepools",
  VirtualMachine: "virtualmachines",
  VirtualMachineInstance: "virtualmachineinstances",
  DataVolume: "datavolumes",
};

type Headers = Readonly<Record<string, string>>;

/** In which mode the headers announce CloudEvents; undefined when they announce none. */
export function cloudEventMode(headers: Headers): "batch" | "structured" | "binary" | undefined {
  const contentType = (headers["content-type"] ?? "").toLowerCase();
  if (contentType.startsWith("application/cloudevents-batch+json")) return "batch";
  if (contentType.startsWith("application/cloudevents+json")) return "structured";
  return headers["ce-specversion"] === undefined ? undefined : "binary";
}

/** The events of a request, unread; undefined when it is no CloudEvent. */
export function findCloudEvents(headers: Headers, body: string): readonly unknown[] | undefined {
  const mode = cloudEventMode(headers);
  if (mode === undefined) return undefined;
  if (mode === "batch") {
    const batch = parseJson(body);
    return Array.isArray(batch) ? batch.slice(0, BATCH_MAX) : [undefined];
  }
  if (mode === "structured") return [parseJson(body)];
  const attributes = Object.entries(headers).filter(([name]) => name.startsWith("ce-"));
  return [{ ...Object.fromEntries(attributes.map(([name, value]) => [name.slice(3), value])), data: parseJson(body) }];
}

/** The change that a CloudEvent tells of. */
export function readCloudEvent(event: unknown): Reading {
  const parsed = attributesSchema.safeParse(event);
  if (!parsed.success) return "bad";
  const attributes = parsed.data;
  const data = attributes.data_base64 === undefined ? attributes.data : parseJson(decode(attributes.data_base64));
  const subject = subjectSchema.safeParse(data);
  const of = subject.success ? subject.data : {};
  const apiVersion = of.apiVersion ?? attributes.apiversion ?? "";
  const kind = changedKind(apiVersion.split("/")[0] ?? "", PLURALS[of.kind ?? attributes.kind ?? ""] ?? "");
  const namespace = of.metadata?.namespace ?? of.namespace ?? attributes.namespace;
  const name = of.metadata?.name ?? of.name ?? attributes.name;
  if (kind === undefined || namespace === undefined || name === undefined) return "ignored";
  return {
    kind,
    namespace,
    name,
    // Knative does not say by which subresource an object was written.
    statusOnly: false,
    object: isRecord(data) && isRecord(data["metadata"]) ? data : undefined,
    oldObject: undefined,
  };
}

function decode(base64: string): string {
  return Buffer.from(base64, "base64").toString("utf8");
}
