/** CloudEvents 1.0 over HTTP, in the three modes of its binding, as Knative's ApiServerSource and others send them. */
import * as z from "zod";
import { isRecord, parseJson } from "../planning/json.ts";
import { type Change, changedKind } from "./changes.ts";

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

/** The events of a request, unread; undefined when it is no CloudEvent. */
export function findCloudEvents(
  headers: Readonly<Record<string, string>>,
  body: string,
): readonly unknown[] | undefined {
  const contentType = (headers["content-type"] ?? "").toLowerCase();
  if (contentType.startsWith("application/cloudevents-batch+json")) {
    const batch = parseJson(body);
    return Array.isArray(batch) ? batch.slice(0, BATCH_MAX) : [undefined];
  }
  if (contentType.startsWith("application/cloudevents+json")) return [parseJson(body)];
  if (headers["ce-specversion"] === undefined) return undefined;
  const attributes = Object.entries(headers).filter(([name]) => name.startsWith("ce-"));
  return [{ ...Object.fromEntries(attributes.map(([name, value]) => [name.slice(3), value])), data: parseJson(body) }];
}

/** The change that a CloudEvent tells of; `ignored` when it tells of none that matters, `bad` when it is not a CloudEvent. */
export function readCloudEvent(event: unknown): Change | "ignored" | "bad" {
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
