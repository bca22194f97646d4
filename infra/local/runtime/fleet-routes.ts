/** Where `fleet` is reached locally. */
import type { Context } from "aws-lambda";
import { type HttpAnswer, problem } from "../../../shared/runtime/http.ts";
import type { Route } from "../routes.ts";
import { routesOf } from "./wiring.ts";

/** Runs the function; nothing comes back when it no longer may. */
type Invoke = (event: unknown, context: Context) => Promise<HttpAnswer | undefined>;

export function createFleetRoutes(invoke: Invoke): readonly Route[] {
  const handle: Route["handle"] = async (event, context) =>
    (await invoke(event, context)) ?? problem(503, "the functions are being stopped", { "retry-after": "1" });
  return routesOf("fleet").map((route) => ({ ...route, handle }));
}
