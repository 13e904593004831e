// The `serve` scripts, with the real servers that they pin: by `node --test`, from check.sh.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer, get } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

const SERVERS = path.join(import.meta.dirname, "../../mcp-servers");
const SCRIPTS = Object.entries(JSON.parse(readFileSync(path.join(SERVERS, "servers.json"), "utf8")));
const script = (name) => path.join(SERVERS, Object.fromEntries(SCRIPTS)[name].serve);
// A working folder of the servers' own, to see what they leave.
const TMP = mkdtempSync(path.join(tmpdir(), "cogo-serve-"));
const started = [];
after(() => {
    for (const child of started) child.kill("SIGKILL");
    for (const pid of processes()) process.kill(Number(pid), "SIGKILL");
    rmSync(TMP, { recursive: true, force: true });
});

async function until(what, condition, withinMs = 60_000) {
    for (let waited = 0; !(await condition()); waited += 50) {
        assert.ok(waited < withinMs, what());
        await sleep(50);
    }
}

// No sandbox, since not every kernel that runs tests allows it.
const OURS = { HOST: "", PORT: "0", HTTP_PORT: "0", TMPDIR: TMP, CHROMIUM_SANDBOX: "off" };
const environment = (more) => ({ ...process.env, ...OURS, ...more });

async function start(name) {
    const child = spawn(script(name), { env: environment(), stdio: ["ignore", "ignore", "pipe"] });
    started.push(child);
    let log = "";
    child.stderr.on("data", (data) => (log += data));
    child.exited = new Promise((resolve) => child.on("exit", (code) => resolve(code)));
    await until(() => `${name} was not ready:\n${log}`, () => /^ready: /m.test(log) || child.exitCode !== null);
    const [, address, port] = log.match(/^ready: ws:\/\/(.*):(\d+)$/m) ?? assert.fail(log);
    return { child, address, port: Number(port), http: log.match(/also at http:\/\/.*:(\d+)\/mcp/)?.[1] };
}

// Every process whose environment has our folder: children of children too, whoever their parent is by now.
function processes() {
    return readdirSync("/proc").filter(Number).filter((pid) => {
        try {
            const dead = / Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\)/s, ""));
            return !dead && Number(pid) !== process.pid && readFileSync(`/proc/${pid}/environ`, "utf8").includes(TMP);
        } catch {
            return false;
        }
    });
}

// The status of an answer to a WebSocket's first request.
function upgrade(port, headers, host = "127.0.0.1") {
    const fixed = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13" };
    return new Promise((resolve, reject) => {
        const request = get({ host, port, headers: { ...fixed, "sec-websocket-key": "x3JJHMbDL1EzLkh9GBhXDw==", ...headers } });
        request.on("response", (response) => resolve(response.resume().statusCode));
        request.on("upgrade", (response, socket) => resolve((socket.destroy(), response.statusCode)));
        request.on("error", reject);
    });
}

// Calls a tool as a client of two lines, by the `ws` that the server itself has.
async function call(name, port, tool, args) {
    const { overWebSocket, INITIALIZE } = await import(path.join(SERVERS, "bridge/ask.mjs"));
    const { home } = await import(path.join(SERVERS, "bridge/install.mjs"));
    const { createRequire } = await import("node:module");
    const base = process.env.MCP_SERVERS_DIR || path.join(SERVERS, "../target/mcp-servers");
    const WebSocket = createRequire(path.join(home(path.dirname(script(name)), path.resolve(base)), "package.json"))("ws");
    const request = { method: "tools/call", params: { name: tool, arguments: args } };
    return (await overWebSocket(WebSocket, `ws://127.0.0.1:${port}`, [INITIALIZE, request], 60_000))[1];
}

for (const [name, { serve }] of SCRIPTS) {
    test(`${name} serves its loopback alone, turns pages away, and can be checked`, async () => {
        const { child, address, port, http } = await start(name);
        assert.equal(address, "127.0.0.1");
        assert.equal(await upgrade(port, {}), 101);
        assert.equal(await upgrade(port, { origin: "http://localhost" }), 403);
        await assert.rejects(upgrade(port, {}, "127.0.0.2"), /ECONNREFUSED/);
        if (name === "figma") {
            const answer = await fetch(`http://127.0.0.1:${http}/mcp`, { method: "POST", headers: { origin: "null" } });
            assert.equal(answer.status, 403);
        }
        const check = (PORT) => spawnSync(path.join(SERVERS, serve), ["check"], {
            env: environment({ PORT, HTTP_PORT: http ?? "" }),
        }).status;
        assert.equal(check(String(port)), 0);

        const asked = Date.now();
        child.kill("SIGTERM");
        assert.equal(await child.exited, 0);
        assert.ok(Date.now() - asked < 5000, "it took longer than five seconds");
        assert.deepEqual(processes(), []);
        assert.deepEqual(readdirSync(TMP), []);
        assert.equal(check(String(port)), 1);
    });
}

test("a page is opened by Chromium, and neither SIGTERM nor kill -9 leaves a process", async () => {
    const page = createServer((_, response) => response.setHeader("content-type", "text/html").end("<title>Here</title>"));
    await new Promise((resolve) => page.listen(0, "127.0.0.1", resolve));
    for (const signal of ["SIGTERM", "SIGKILL"]) {
        const { child, port } = await start("browser");
        const url = `http://127.0.0.1:${page.address().port}/`;
        const { content } = await call("browser", port, "browser_navigate", { url });
        assert.match(content[0].text, /Page Title: Here/);
        assert.ok(processes().length > 4, "Chromium runs");
        child.kill(signal);
        await child.exited;
        await until(() => `left after ${signal}: ${processes()}`, () => processes().length === 0, signal === "SIGTERM" ? 1 : 8000);
    }
    page.close();
});

test("the second process of figma ends too when serve is killed", async () => {
    const { child } = await start("figma");
    assert.ok(processes().length >= 3, "serve, supergateway, its child, and HTTP");
    child.kill("SIGKILL");
    await child.exited;
    await until(() => `left: ${processes()}`, () => processes().length === 0, 8000);
});

test("what root installs another user can read", async () => {
    const { install } = await import(path.join(SERVERS, "bridge/install.mjs"));
    const folder = path.join(TMP, "nothing");
    const lock = { name: "nothing", lockfileVersion: 3, requires: true, packages: { "": { name: "nothing" } } };
    mkdirSync(folder);
    writeFileSync(path.join(folder, "package.json"), '{ "name": "nothing" }');
    writeFileSync(path.join(folder, "package-lock.json"), JSON.stringify(lock));
    const home = path.join(TMP, "installed");
    install(folder, home, () => {});
    assert.equal(statSync(home).mode & 0o777, 0o755);
    for (const made of [folder, home]) rmSync(made, { recursive: true });
});

test("what is set wrong is told with the name of the variable, and nothing is started", () => {
    const refused = (name, variables, words, args = []) => {
        const done = spawnSync(script(name), args, { env: environment(variables), encoding: "utf8" });
        assert.equal(done.status, 2, done.stderr);
        for (const word of words) assert.ok(done.stderr.includes(word), `${word}: ${done.stderr}`);
    };
    refused("browser", { PORT: "70000" }, ["PORT is '70000'", "0 to 65535"]);
    refused("figma", { HTTP_PORT: "http" }, ["HTTP_PORT is 'http'"]);
    refused("figma", { PORT: "3001", HTTP_PORT: "3001" }, ["PORT and HTTP_PORT are both 3001"]);
    refused("browser", { CHROMIUM: "/nonexistent" }, ["CHROMIUM: /nonexistent", "apt-get install chromium"]);
    refused("browser", { CHROMIUM_SANDBOX: "maybe" }, ["CHROMIUM_SANDBOX is 'maybe'", "on or off"]);
    refused("browser", {}, ["usage"], ["start"]);
    refused("figma", { MCP_SERVERS_DIR: TMP, PORT: "1" }, ["nothing is installed", "MCP_SERVERS_DIR"], ["check"]);
    assert.ok(!existsSync(path.join(TMP, "figma-context")));
});
