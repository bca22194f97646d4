/** Loaded before AWS's runtime interface client, in the place of its native HTTP client: the same three calls over node:http. */
import { Agent, request } from "node:http";
import Module from "node:module";

const agent = new Agent({ keepAlive: true, maxSockets: 1 });
const [hostname, port] = (process.env.AWS_LAMBDA_RUNTIME_API ?? "").split(":");

function send(method, path, headers, body) {
  return new Promise((resolve, reject) => {
    const outgoing = request({ agent, hostname, port, method, path: `/2018-06-01/runtime/${path}`, headers });
    outgoing.on("error", reject).on("response", (answer) => {
      const chunks = [];
      answer.on("data", (chunk) => chunks.push(chunk)).on("error", reject);
      answer.on("end", () => resolve({ headers: answer.headers, bodyJson: Buffer.concat(chunks).toString("utf8") }));
    });
    outgoing.end(body);
  });
}

/** The native calls block until they are answered; here the next poll waits for them. */
let posted = Promise.resolve();
function post(path, body, headers = {}) {
  posted = send("POST", path, { "content-type": "application/json", ...headers }, body);
}

const client = {
  async next() {
    await posted;
    return send("GET", "invocation/next", {}, undefined);
  },
  done: (id, body) => post(`invocation/${id}/response`, body),
  error: (id, body, xray) =>
    post(`invocation/${id}/error`, body, { "lambda-runtime-function-xray-error-cause": xray.replaceAll("\n", "") }),
};

Module._extensions[".node"] = (module) => {
  module.exports = client;
};
