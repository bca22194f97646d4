import type { IncomingMessage, ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, it, onTestFinished } from "vitest";
import type { ClusterAccess, ServerAccess } from "../../shared/clusters/access.ts";
import { createCluster, type Meter, VIRTUAL_MACHINES } from "../../shared/clusters/cluster.ts";
import { type Connection, type ConnectionOptions, openConnection } from "../../shared/clusters/connection.ts";
import type { EksCluster, EksEndpoint } from "../../shared/clusters/eks.ts";
import { UnreachableError } from "../../shared/clusters/unreachable.ts";
import {
  accessTo,
  base64,
  type Certificates,
  issueCertificates,
  type LocalServer,
  serve,
} from "../support/transport-server.ts";

const SERVING = issueCertificates();
const MEGABYTE = Buffer.alloc(1024 * 1024, "x");
const POLL_MS = 5;

function connect(access: ClusterAccess, options: ConnectionOptions = {}): Connection {
  const connection = openConnection(access, options);
  onTestFinished(() => connection.close());
  return connection;
}

/** A server that answers as told, and a connection to it. */
async function aPair(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
  fields: Partial<ServerAccess> = {},
) {
  const certificates = await SERVING;
  const server = await serve(certificates, answer);
  return { server, connection: connect(accessTo(server, certificates.ca, fields)), certificates };
}

function get(connection: Connection, path = "/", signal = new AbortController().signal) {
  return connection.send({ method: "GET", path, signal });
}

/** How the client of a pass sees what the connection throws. */
async function failureOver(connection: Connection) {
  const meter: Meter = { requests: 0, writes: 0, bytes: 0 };
  const deadline = new AbortController().signal;
  const cluster = createCluster({ transport: connection.send, meter, deadline, cache: { poolVersion: undefined } });
  const answer = await cluster.get(VIRTUAL_MACHINES, { namespace: "ci", name: "web-0" });
  return answer.ok ? undefined : answer.failure;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(POLL_MS);
}

function ok(_request: IncomingMessage, response: ServerResponse): void {
  response.end("{}");
}

it("keeps its connection for twenty requests, one after the other", async () => {
  const { server, connection } = await aPair(ok);
  for (let sent = 0; sent < 20; sent += 1) await get(connection);

  // The second request may come before undici has noticed that the first one's socket is free.
  expect(server.sockets()).toBeLessThanOrEqual(2);
});

it("opens no more than 32 connections for many requests at once", async () => {
  const { server, connection } = await aPair((_, response) => void sleep(POLL_MS).then(() => response.end("{}")));
  await Promise.all(Array.from({ length: 200 }, () => get(connection)));

  expect(server.sockets()).toBeLessThanOrEqual(32);
});

it("opens no connection before the first request", async () => {
  const { server, connection } = await aPair(ok);
  await connection.close();

  expect(server.sockets()).toBe(0);
});

it("sends token, method, path, content type and body as asked", async () => {
  const seen: unknown[] = [];
  const { connection } = await aPair((request, response) => {
    const { method, url, headers } = request;
    let text = "";
    request.on("data", (chunk) => {
      text += String(chunk);
    });
    request.on("end", () => {
      seen.push([method, url, headers.authorization, headers.accept, headers["content-type"], text]);
      response.end("{}");
    });
  });
  const { signal } = new AbortController();
  await connection.send({ method: "GET", path: "/api?limit=1", accept: "application/json;as=Table", signal });
  await connection.send({ method: "POST", path: "/api", body: { a: "é" }, signal });
  const contentType = "application/merge-patch+json";
  await connection.send({ method: "PATCH", path: "/api", body: [], contentType, signal });

  const bearer = "Bearer s3cr3t";
  expect(seen).toEqual([
    ["GET", "/api?limit=1", bearer, "application/json;as=Table", undefined, ""],
    ["POST", "/api", bearer, "application/json", "application/json", '{"a":"é"}'],
    ["PATCH", "/api", bearer, "application/json", "application/merge-patch+json", "[]"],
  ]);
});

it("puts paths behind that of the server", async () => {
  const urls: (string | undefined)[] = [];
  const certificates = await SERVING;
  const server = await serve(certificates, (request, response) => {
    urls.push(request.url);
    response.end("{}");
  });
  for (const path of ["/clusters/c-1", "/clusters/c-1/"]) {
    await get(connect(accessTo(server, certificates.ca, { server: `${server.url}${path}` })), "/api/v1");
  }

  expect(urls).toEqual(["/clusters/c-1/api/v1", "/clusters/c-1/api/v1"]);
});

it("reads JSON, and text where there is none, with status, headers and size", async () => {
  const { connection } = await aPair((request, response) => {
    response.writeHead(request.url === "/text" ? 500 : 201, { "Retry-After": "7" });
    response.end(request.url === "/text" ? "<html>" : '{"a":"é"}');
  });

  expect(await get(connection)).toMatchObject({
    status: 201,
    body: { a: "é" },
    bytes: 10,
    headers: { "retry-after": "7" },
  });
  expect(await get(connection, "/text")).toMatchObject({ status: 500, body: "<html>" });
});

it("follows no redirect: neither token nor body goes elsewhere", async () => {
  let elsewhere = 0;
  const certificates = await SERVING;
  const other = await serve(certificates, (request, response) => {
    elsewhere += 1;
    ok(request, response);
  });
  const { connection } = await aPair((_, response) => response.writeHead(307, { location: other.url }).end());

  expect(await get(connection)).toMatchObject({ status: 307 });
  expect(await failureOver(connection)).toMatchObject({ kind: "invalid", status: 307, message: "HTTP 307" });
  expect(elsewhere).toBe(0);
});

/** What a client says that trusts `authority`, or the system's when there is none; and how many requests arrived. */
async function refusedBy(certificates: Certificates, authority?: string) {
  let arrived = 0;
  const server = await serve(certificates, (request, response) => {
    arrived += 1;
    ok(request, response);
  });
  const { certificateAuthorityData: _ca, ...access } = accessTo(server, certificates.ca);
  const given = authority === undefined ? access : { ...access, certificateAuthorityData: base64(authority) };
  return { failure: await failureOver(connect(given)), arrived };
}

it.each([
  ["another authority than the entry's", async () => refusedBy(await SERVING, (await issueCertificates()).ca)],
  ["an authority that nobody knows", async () => refusedBy(await SERVING)],
  [
    "the right authority for another address",
    async () => {
      const certificates = await issueCertificates("server", "127.0.0.2");
      return refusedBy(certificates, certificates.ca);
    },
  ],
])("sends nothing to a server whose certificate is from %s", async (_whose, refused) => {
  const { failure, arrived } = await refused();

  expect(failure).toMatchObject({ kind: "unreachable", definite: true });
  expect(failure?.message).toMatch(/^the API server cannot be reached \([A-Z_]+\)$/);
  expect(arrived).toBe(0);
});

it("shows a client certificate when the entry has one, and no token", async () => {
  const certificates = await SERVING;
  const client = await issueCertificates("client");
  const seen: unknown[] = [];
  const server = await serve(
    certificates,
    (request, response) => {
      seen.push(request.headers.authorization);
      ok(request, response);
    },
    { clientCa: client.ca },
  );
  const auth = {
    kind: "clientCertificate",
    certificateData: base64(client.cert),
    keyData: base64(client.key),
  } as const;

  expect(await get(connect(accessTo(server, certificates.ca, { auth })))).toMatchObject({ status: 200 });
  expect(seen).toEqual([undefined]);
  expect(await failureOver(connect(accessTo(server, certificates.ca)))).toMatchObject({ kind: "unreachable" });
});

/** A resolver that gives these addresses for every name. */
function resolvingTo(...addresses: readonly string[]): NonNullable<ConnectionOptions["lookup"]> {
  return (_hostname, { all }, callback) => {
    const found = addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }));
    if (all === true) callback(null, found);
    else callback(null, found[0]?.address ?? "", found[0]?.family);
  };
}

it.each([
  ["a link-local address", ["169.254.169.254"]],
  ["a metadata address of IPv6", ["fd00:ec2::254"]],
  ["an IPv4 address in the clothes of IPv6", ["::ffff:169.254.169.254"]],
  ["a link-local address among others", ["127.0.0.1", "169.254.170.2"]],
])("connects to no name that resolves to %s", async (_what, addresses) => {
  const certificates = await SERVING;
  const access = accessTo({ url: "https://api.example", sockets: () => 0, open: () => 0 }, certificates.ca);
  const failure = await failureOver(connect(access, { lookup: resolvingTo(...addresses) }));

  expect(failure).toMatchObject({
    kind: "unreachable",
    definite: true,
    message: expect.stringMatching(/^api\.example resolves to a link-local or metadata address, which is not called/),
  });
});

it("connects to what a name resolves to", async () => {
  const certificates = await SERVING;
  const hosts: (string | undefined)[] = [];
  const { url } = await serve(certificates, (request, response) => {
    hosts.push(request.headers.host);
    ok(request, response);
  });
  const named = accessTo({ url, sockets: () => 0, open: () => 0 }, certificates.ca, {
    server: url.replace("127.0.0.1", "api.example"),
  });
  const failure = await failureOver(connect(named, { lookup: resolvingTo("127.0.0.1") }));

  // The certificate is the address's, not the name's: it was connected to, and then refused.
  expect(failure?.message).toBe("the API server cannot be reached (ERR_TLS_CERT_ALTNAME_INVALID)");
  expect(hosts).toEqual([]);
});

const EKS: ClusterAccess = { auth: { kind: "eks", clusterName: "prod", region: "eu-central-1" }, mode: "act" };

/** A cluster of EKS at this server, whose tokens come in this order; a refusal gives the next. */
function anEksCluster(endpoint: () => Promise<EksEndpoint>, tokens: readonly string[]) {
  let refusals = 0;
  const cluster: EksCluster = {
    endpoint,
    token: async () => tokens[Math.min(refusals, tokens.length - 1)] ?? "",
    refuse() {
      refusals += 1;
    },
  };
  return { openEks: () => cluster, refusals: () => refusals };
}

/** A server that takes one token, and what it was asked with. */
async function aServerFor(token: string) {
  const certificates = await SERVING;
  const seen: string[] = [];
  const server = await serve(certificates, (request, response) => {
    let text = "";
    request.on("data", (chunk) => {
      text += String(chunk);
    });
    request.on("end", () => {
      seen.push(`${request.headers.authorization} ${request.method} ${text}`);
      response.writeHead(request.headers.authorization === `Bearer ${token}` ? 200 : 401).end("{}");
    });
  });
  const endpoint = { server: server.url, certificateAuthorityData: base64(certificates.ca) };
  return { seen, server, endpoint, certificates };
}

it("reaches a cluster of EKS at the address and with the authority and token that are told of it", async () => {
  const { seen, endpoint } = await aServerFor("t1");
  const connection = connect(
    EKS,
    anEksCluster(async () => endpoint, ["t1"]),
  );

  expect(await get(connection)).toMatchObject({ status: 200 });
  expect(seen).toEqual(["Bearer t1 GET "]);
});

it("sends a request again, once, when its token is refused and there is another", async () => {
  const { seen, endpoint } = await aServerFor("t2");
  const connection = connect(
    EKS,
    anEksCluster(async () => endpoint, ["t1", "t2"]),
  );
  const { signal } = new AbortController();
  const answer = await connection.send({ method: "POST", path: "/", body: { a: 1 }, signal });

  expect(answer).toMatchObject({ status: 200 });
  expect(seen).toEqual(['Bearer t1 POST {"a":1}', 'Bearer t2 POST {"a":1}']);
});

it.each([
  ["is no other", ["t1"], 1],
  ["is none that is taken", ["t1", "t2", "t3"], 2],
])("gives the refusal when there %s token", async (_what, tokens, requests) => {
  const { seen, endpoint } = await aServerFor("never");
  const connection = connect(
    EKS,
    anEksCluster(async () => endpoint, tokens),
  );

  expect(await get(connection)).toMatchObject({ status: 401 });
  expect(seen).toHaveLength(requests);
});

it("gives the refusal of a token that an entry names, and asks once", async () => {
  const { seen, server, certificates } = await aServerFor("never");

  expect(await get(connect(accessTo(server, certificates.ca)))).toMatchObject({ status: 401 });
  expect(seen).toHaveLength(1);
});

it("moves with a cluster of EKS that is told to be somewhere else", async () => {
  const [before, after] = [await aServerFor("t1"), await aServerFor("t1")];
  let { endpoint } = before;
  const connection = connect(
    EKS,
    anEksCluster(async () => endpoint, ["t1"]),
  );
  await get(connection);
  ({ endpoint } = after);
  await get(connection);
  await get(connection);

  expect([before.seen.length, after.seen.length]).toEqual([1, 2]);
  await until(() => before.server.open() === 0);
  await connection.close();
  await until(() => after.server.open() === 0);
});

it("tells why a cluster of EKS cannot be reached", async () => {
  const endpoint = async () => {
    throw new UnreachableError("allow the function's role eks:DescribeCluster");
  };

  expect(await failureOver(connect(EKS, anEksCluster(endpoint, ["t1"])))).toEqual({
    kind: "unreachable",
    status: undefined,
    definite: true,
    retryAfterMs: undefined,
    message: "allow the function's role eks:DescribeCluster",
  });
});

it("waits for EKS no longer than for anything else", async () => {
  const connection = connect(
    EKS,
    anEksCluster(() => new Promise(() => {}), ["t1"]),
  );
  const stop = new AbortController();
  const answer = get(connection, "/", stop.signal);
  stop.abort(new Error("enough"));

  await expect(answer).rejects.toThrow("enough");
});

it("ends a request, and its socket, when the signal fires", async () => {
  const arrived = Promise.withResolvers<void>();
  const { server, connection } = await aPair(() => arrived.resolve());
  const stop = new AbortController();
  const answer = get(connection, "/", stop.signal);
  await arrived.promise;
  stop.abort(new Error("enough"));

  await expect(answer).rejects.toThrow("enough");
  await until(() => server.open() === 0);
});

it("ends in the middle of an answer too", async () => {
  const { server, connection } = await aPair((_, response) => void response.writeHead(200).write('{"items":['));
  const stop = new AbortController();
  const answer = get(connection, "/", stop.signal);
  await until(() => server.open() === 1);
  stop.abort(new Error("enough"));

  await expect(answer).rejects.toThrow("enough");
  await until(() => server.open() === 0);
});

it("sends nothing when the signal has fired before", async () => {
  const { server, connection } = await aPair(ok);

  await expect(get(connection, "/", AbortSignal.abort(new Error("too late")))).rejects.toThrow("too late");
  expect(server.sockets()).toBe(0);
});

it("reads no answer beyond 64 MiB, and ends its socket", async () => {
  const { server, connection } = await aPair((_, response) => {
    const write = () => {
      while (!response.destroyed) if (!response.write(MEGABYTE)) return void response.once("drain", write);
    };
    write();
  });

  await expect(get(connection)).rejects.toThrow("exceeds 67108864 bytes");
  await until(() => server.open() === 0);
});

it("does not know what happened when the server hangs up", async () => {
  const { connection } = await aPair((request) => request.socket.destroy());

  expect(await failureOver(connection)).toMatchObject({ kind: "unreachable", definite: false });
});

it("knows that nothing was sent when nobody listens", async () => {
  const certificates = await SERVING;
  const closed: LocalServer = { url: "https://127.0.0.1:1", sockets: () => 0, open: () => 0 };

  expect(await failureOver(connect(accessTo(closed, certificates.ca)))).toMatchObject({
    kind: "unreachable",
    definite: true,
    message: "the API server cannot be reached (ECONNREFUSED)",
  });
});

it("ends what is under way when it is closed", async () => {
  const arrived = Promise.withResolvers<void>();
  const { server, connection } = await aPair(() => arrived.resolve());
  const answer = get(connection);
  const outcome = expect(answer).rejects.toThrow();
  await arrived.promise;
  await connection.close();

  await outcome;
  await until(() => server.open() === 0);
});

it("yields each line of a watch as it comes, until the signal ends it", async () => {
  const { server, connection } = await aPair((_, response) => {
    response.writeHead(200);
    response.write('{"type":"ADDED","n":1}\n{"type":"MODI');
    setImmediate(() => response.write('FIED","n":"é"}\n\n'));
  });
  const stop = new AbortController();
  const seen: unknown[] = [];
  const watching = async () => {
    for await (const event of connection.watch("/watch", stop.signal)) {
      seen.push(event);
      if (seen.length === 2) stop.abort(new Error("enough"));
    }
  };

  await expect(watching()).rejects.toThrow("enough");
  expect(seen).toEqual([
    { type: "ADDED", n: 1 },
    { type: "MODIFIED", n: "é" },
  ]);
  await until(() => server.open() === 0);
});

it("ends a watch with the server's answer, and refuses one that is refused", async () => {
  const { connection } = await aPair((request, response) => {
    if (request.url === "/refused") response.writeHead(410).end("too old");
    else response.end('{"n":1}\n');
  });
  const { signal } = new AbortController();
  const seen: unknown[] = [];
  for await (const event of connection.watch("/watch", signal)) seen.push(event);

  expect(seen).toEqual([{ n: 1 }]);
  const refused = connection.watch("/refused", signal)[Symbol.asyncIterator]();
  await expect(refused.next()).rejects.toThrow("watch /refused: 410 too old");
});
