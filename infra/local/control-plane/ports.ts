/** Free TCP ports of 127.0.0.1; promises nothing about who takes them next. */
import { once } from "node:events";
import { createServer } from "node:net";
import { errorCode } from "./setup-error.ts";

const HOST = "127.0.0.1";

/** Picks `count` different ports that nobody listens on now. */
export async function pickPorts(count: number): Promise<readonly number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  try {
    return await Promise.all(
      servers.map(async (server) => {
        server.listen(0, HOST);
        await once(server, "listening");
        const address = server.address();
        if (address === null || typeof address === "string") throw new Error("a TCP listener without a port");
        return address.port;
      }),
    );
  } finally {
    for (const server of servers) server.close();
  }
}

/** Whether somebody listens on the port. */
export async function isTaken(port: number): Promise<boolean> {
  const server = createServer();
  try {
    server.listen(port, HOST);
    await once(server, "listening");
    return false;
  } catch (error) {
    if (errorCode(error) === "EADDRINUSE") return true;
    throw error;
  } finally {
    server.close();
  }
}
