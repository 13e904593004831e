// What the `serve` scripts have in common. One starts one pinned MCP server in the foreground:
//
//   serve            installs what is pinned unless it is there, serves until SIGTERM, SIGINT or SIGHUP
//   serve install    installs it, and ends
//   serve check      asks the one that runs at HOST and PORT for a sign of life; ends with 1 when there is none
//
// HOST (127.0.0.1), PORT of the WebSocket, and MCP_SERVERS_DIR (target/mcp-servers), below which it installs.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { INITIALIZE, LIST_TOOLS, PING, overWebSocket } from "./ask.mjs";
import { home, install } from "./install.mjs";
import { Processes } from "./processes.mjs";

const REPOSITORY = fileURLToPath(new URL("../../", import.meta.url));
// A browser on a busy machine of two cores needs ten seconds.
const READY_MS = 60_000;
const CHECK_MS = 5_000;

export class Refused extends Error {}

// `server` has `folder`, `port` by default, `check()` of what must be there, `command(context)` of the stdio
// server, and where it serves more than a WebSocket `beside(context, processes)` and `checkBeside(context)`.
export async function main(server) {
    const name = path.basename(server.folder);
    const say = (line) => process.stderr.write(`${name}: ${line}\n`);
    try {
        const [verb = "serve", ...rest] = process.argv.slice(2);
        if (!["serve", "install", "check"].includes(verb) || rest.length > 0) {
            throw new Refused("usage: serve [install | check]; the rest is set by the environment, see README.md");
        }
        const host = process.env.HOST || "127.0.0.1";
        const context = {
            host,
            // Where one asks a server that listens everywhere.
            near: { "0.0.0.0": "127.0.0.1", "::": "[::1]" }[host] ?? (host.includes(":") ? `[${host}]` : host),
            port: port("PORT", server.port),
            say,
        };
        const base = path.resolve(process.env.MCP_SERVERS_DIR || path.join(REPOSITORY, "target/mcp-servers"));
        server.settings?.(context);
        if (verb === "serve") server.check?.(context);
        context.home = home(server.folder, base);
        if (verb !== "check") install(server.folder, context.home, say);
        else if (!existsSync(context.home)) throw new Refused(`nothing is installed below ${base}; see MCP_SERVERS_DIR`);
        context.WebSocket = createRequire(path.join(context.home, "package.json"))("ws");
        if (verb === "check") await check(server, context);
        if (verb === "serve") return await serve(server, context);
        process.exit(0);
    } catch (error) {
        say(error instanceof Refused ? error.message : `failed: ${error.message}`);
        process.exit(error instanceof Refused ? 2 : 1);
    }
}

// A port by the environment.
export function port(variable, otherwise) {
    const value = process.env[variable] || String(otherwise);
    if (!/^\d{1,5}$/.test(value) || Number(value) > 65535) {
        throw new Refused(`${variable} is '${value}'; it must be a port, 0 to 65535 (0: any that is free)`);
    }
    return Number(value);
}

async function check(server, context) {
    if (context.port === 0) throw new Refused("PORT must be the one at which the server runs");
    await overWebSocket(context.WebSocket, `ws://${context.near}:${context.port}`, [PING], CHECK_MS);
    await server.checkBeside?.(context, CHECK_MS);
}

async function serve(server, context) {
    const { say } = context;
    // What the server writes ends up here, and nothing that was there before is within its reach.
    context.scratch = mkdtempSync(path.join(tmpdir(), `cogo-${path.basename(server.folder)}-`));
    const processes = new Processes();
    const end = async (code, why) => {
        if (why) say(why);
        await processes.end();
        rmSync(context.scratch, { recursive: true, force: true });
        process.exit(code);
    };
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(signal, () => void end(0));

    const supergateway = path.join(context.home, "node_modules/supergateway/dist/index.js");
    const options = ["--stdio", shell(server.command(context)), "--outputTransport", "ws", "--messagePath", "/"];
    const listening = processes.start(
        "supergateway",
        [supergateway, ...options, "--port", String(context.port)],
        { cwd: context.scratch, env: { ...process.env, HOST: context.host, ...server.environment?.(context) } },
        bridgeLine(say),
    );
    const started = (async () => {
        await server.beside?.(context, processes);
        context.port = await listening;
        const url = `ws://${context.near}:${context.port}`;
        const [, { tools }] = await overWebSocket(context.WebSocket, url, [INITIALIZE, LIST_TOOLS], READY_MS);
        if (tools.length === 0) throw new Error("it has no tools");
        await server.checkBeside?.(context, READY_MS);
        process.stderr.write(`ready: ws://${context.host}:${context.port}\n`);
    })();
    void processes.ended.then((why) => end(1, why));
    await Promise.race([started, deadline()]).catch((error) => end(1, `does not answer: ${error.message}`));
}

function deadline() {
    return new Promise((_, reject) => {
        setTimeout(() => reject(new Error(`not within ${READY_MS / 1000} s`)), READY_MS).unref();
    });
}

// supergateway writes every message whole. They are the callers' and none of the log's.
function bridgeLine(say) {
    return (line) => {
        const stderr = line.match(/^\[supergateway\] Child stderr: (.*)/);
        if (stderr) say(stderr[1]);
        else if (/^\[supergateway\] (Failed|WebSocket error|Error|Child (exited|non-JSON))/.test(line)) say(line);
    };
}

// One line for the shell by which supergateway starts its child.
function shell(words) {
    return `exec ${words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ")}`;
}
