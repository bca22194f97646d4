/** Where `scale` is reached locally: at the scale subresource's own path, and with events in the place of a bus. */
import type { Context } from "aws-lambda";

import type { ScaleResult } from "../../../functions/scale.ts";
import { SCALE_REQUESTED } from "../../../shared/events/facts.ts";
import { isRecord, parseJson } from "../../../shared/planning/json.ts";
import { type HttpAnswer, httpEventSchema, json, problem, readBody } from "../../../shared/runtime/http.ts";
import type { Route } from "../routes.ts";
import { leadsTo, routesOf } from "./wiring.ts";

/** Of an event, as on EventBridge. */
const EVENT_BYTES_MAX = 256 * 1024;

/** Runs the function; nothing comes back when it no longer may. */
type Invoke = (event: unknown, context: Context) => Promise<HttpAnswer | ScaleResult | undefined>;

export function createScaleRoutes(invoke: Invoke): readonly Route[] {
  const answer: Route["handle"] = async (event, context) => {
    const result = await invoke(event, context);
    if (result === undefined) return problem(503, "the functions are being stopped", { "retry-after": "1" });
    // On AWS nobody sees this: what sends an event does not wait for what comes of it.
    return "statusCode" in result ? result : json(result.outcome === "scaled" ? 200 : 422, result);
  };
  return [
    ...routesOf("scale").map((route) => ({ ...route, handle: answer })),
    {
      functionName: "scale",
      method: "POST",
      path: "/events",
      handle: (event, context) => putEvent(event, context, answer),
    },
  ];
}

/** The bus with its one rule for events of others. */
async function putEvent(request: unknown, context: Context, deliver: Route["handle"]): Promise<HttpAnswer> {
  const body = readBody(httpEventSchema.parse(request), EVENT_BYTES_MAX);
  const event = parseJson(body?.toString("utf8") ?? "");
  if (isRecord(event) && leadsTo("scale", event)) return deliver(event, context);
  return problem(400, `the body has to be an event whose detail-type is "${SCALE_REQUESTED}"`);
}
