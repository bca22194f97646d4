import { createServer } from "node:http";
import { expect, it, onTestFinished } from "vitest";
import { type Route, serveRoutes } from "../../infra/local/routes.ts";
import { type HttpEvent, httpEventSchema, json, readBody } from "../../shared/runtime/http.ts";
import { listen } from "../support/listener.ts";

/** A listener with these routes; how requests are sent there. */
async function serve(...routes: readonly Route[]) {
  const server = createServer((request, response) => void serveRoutes({ routes }, request, response));
  const { port, close } = await listen(server);
  onTestFinished(close);
  return (path: string, init: RequestInit = {}) => fetch(`http://127.0.0.1:${port}${path}`, init);
}

/** A route that keeps the events that reach it. */
function aRoute(method: string, path: string) {
  const events: HttpEvent[] = [];
  const handle: Route["handle"] = async (event) => {
    events.push(httpEventSchema.parse(event));
    return json(200, { path });
  };
  return { events, route: { method, path, functionName: "fleet" as const, handle } };
}

it("makes the event that an HTTP API would make", async () => {
  const { events, route } = aRoute("PUT", "/clusters/{cluster}/pools/{name}");
  const send = await serve(route);
  const headers = { "content-type": "application/json", "X-Trace": "one" };
  const answer = await send("/clusters/west/pools/a%20b?dryRun=All&x=?", { method: "PUT", headers, body: '{"a":"ä"}' });
  expect(answer.status).toBe(200);
  expect(await answer.json()).toEqual({ path: "/clusters/{cluster}/pools/{name}" });
  expect(events).toMatchObject([
    {
      version: "2.0",
      rawPath: "/clusters/west/pools/a%20b",
      rawQueryString: "dryRun=All&x=?",
      headers: { "content-type": "application/json", "x-trace": "one" },
      pathParameters: { cluster: "west", name: "a b" },
      requestContext: { http: { method: "PUT" } },
      body: '{"a":"ä"}',
      isBase64Encoded: false,
    },
  ]);
});

it.each(["application/merge-patch+json", "application/cloudevents+json", ""])(
  "hands a body of type %j over as base64, whose bytes are those that were sent",
  async (type) => {
    const { events, route } = aRoute("POST", "/");
    const send = await serve(route);
    const body = Buffer.from([0, 255, 1, 254]);
    await send("/", { method: "POST", body, ...(type === "" ? {} : { headers: { "content-type": type } }) });
    const [event] = events;
    expect(event).toMatchObject({ isBase64Encoded: true, body: "AP8B/g==" });
    expect(event === undefined ? undefined : readBody(event, 100)).toEqual(body);
  },
);

it("has no body where none was sent", async () => {
  const { events, route } = aRoute("GET", "/");
  await (await serve(route))("/");
  expect(events).toMatchObject([{ isBase64Encoded: false }]);
  expect(events[0]).not.toHaveProperty("body");
});

it("takes the first route of that method and form", async () => {
  const [any, exact, other] = [aRoute("GET", "/a/{x}"), aRoute("GET", "/a/b"), aRoute("POST", "/a/b")];
  const send = await serve(any.route, exact.route, other.route);
  await send("/a/b");
  await send("/a/b", { method: "POST" });
  expect([any.events.length, exact.events.length, other.events.length]).toEqual([1, 0, 1]);
});

it.each(["/", "/a", "/a/b/c", "/a/"])("says that there is nothing at %s", async (path) => {
  const send = await serve(aRoute("GET", "/a/{x}").route, aRoute("GET", "/b").route);
  expect((await send(path)).status).toBe(404);
});

it("refuses a body of more than 10 MB", async () => {
  const { events, route } = aRoute("POST", "/");
  const send = await serve(route);
  expect((await send("/", { method: "POST", body: Buffer.alloc(10 * 1024 * 1024 + 1) })).status).toBe(413);
  expect(events).toEqual([]);
});

it("answers 500 without details when a function throws", async () => {
  const handle: Route["handle"] = async () => {
    throw new Error("secret");
  };
  const answer = await (await serve({ method: "GET", path: "/", functionName: "fleet" as const, handle }))("/");
  expect(answer.status).toBe(500);
  expect(await answer.text()).not.toContain("secret");
});
