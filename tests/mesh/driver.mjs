// Does with the TypeScript SDK's client what it is told, a command a line on stdin, and tells what it sees, a line
// of JSON each on stdout: driver.mjs sdk|client, for @modelcontextprotocol/sdk (1.x) or /client (2.x).
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const which = process.argv[2];
// What is installed where this runs; the script lies elsewhere.
const installed = createRequire(process.cwd() + "/");
const load = (name) => import(pathToFileURL(installed.resolve(name)).href);

async function sdk() {
  if (which === "client") {
    const all = await load("@modelcontextprotocol/client");
    return { Client: all.Client, Transport: all.StreamableHTTPClientTransport };
  }
  const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
  const http = await load("@modelcontextprotocol/sdk/client/streamableHttp.js");
  return { Client, Transport: http.StreamableHTTPClientTransport };
}

const { Client, Transport } = await sdk();
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const running = new Map();
let client;

const told = (error) => ({ code: error.code ?? null, message: String(error.message ?? error), data: error.data ?? null });

function call({ call, name, arguments: args = {}, meta, timeout = 60000 }) {
  const abort = new AbortController();
  running.set(call, abort);
  const params = { name, arguments: args, ...(meta ? { _meta: meta } : {}) };
  const options = {
    signal: abort.signal,
    timeout,
    onprogress: (report) => say({ event: "progress", call, ...report }),
  };
  return which === "client" ? client.callTool(params, options) : client.callTool(params, undefined, options);
}

const commands = {
  async connect({ url, token }) {
    const headers = { Authorization: `Bearer ${token}` };
    const onChanged = (error, tools) =>
      say({ event: "changed", error: error ? String(error) : null, tools: (tools ?? []).map((tool) => tool.name) });
    const options = { listChanged: { tools: { onChanged, debounceMs: 50 } } };
    if (which === "client") options.versionNegotiation = { mode: "auto" };
    client = new Client({ name: "cogo-mesh-test", version: "1.0.0" }, options);
    client.onerror = (error) => say({ event: "error", message: String(error) });
    const transport = new Transport(new URL(url), { requestInit: { headers } });
    await client.connect(transport);
    const revision = client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion;
    return { revision, server: client.getServerVersion() ?? null };
  },
  async tools() {
    return (await client.listTools()).tools;
  },
  call,
  start(command) {
    call(command).then(
      (result) => say({ event: "ended", call: command.call, result }),
      (error) => say({ event: "ended", call: command.call, failed: told(error) }),
    );
    return null;
  },
  cancel({ call }) {
    running.get(call).abort("the test does not want it any more");
    return null;
  },
  async close() {
    await client.close();
    return null;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { id, command, ...rest } = JSON.parse(line);
  // Not awaited: a call may go on while others are made.
  Promise.resolve()
    .then(() => commands[command](rest))
    .then(
      (answer) => say({ id, answer: answer ?? null }),
      (error) => say({ id, failed: told(error) }),
    );
}
process.exit(0);
