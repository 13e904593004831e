// Processes that end together, and leave nobody behind.

import { spawn, spawnSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

// Within the five seconds after which those who stop us lose patience.
const TERM_MS = 4000;

export class Processes {
    #children = [];
    #ending = undefined;
    #tell;
    // Settles when one of them ended by itself, which none should.
    ended = new Promise((resolve) => (this.#tell = resolve));

    // Starts a Node.js program behind the guard. `onLine` gets what it writes; the promise is its port.
    start(what, args, options, onLine) {
        const guard = new URL("guard.cjs", import.meta.url).pathname;
        const child = spawn(process.execPath, ["--require", guard, ...args], {
            ...options,
            // Its input ends and its channel closes when we are killed; it takes both as a request to end.
            stdio: ["pipe", "pipe", "pipe", "ipc"],
        });
        this.#children.push(child);
        for (const stream of [child.stdout, child.stderr]) lines(stream, onLine);
        child.on("error", (error) => this.#tell(`${what} could not be started: ${error.message}`));
        child.on("exit", (code, signal) => this.#tell(`${what} ended by itself (${signal ?? `code ${code}`})`));
        return new Promise((resolve) => child.on("message", (message) => resolve(message.listening)));
    }

    end() {
        return (this.#ending ??= this.#end());
    }

    async #end() {
        // Before their parents end, since after that nobody knows whose children they were.
        const all = this.#children.map((child) => child.pid).flatMap((pid) => [pid, ...descendants(pid)]);
        for (const child of this.#children) child.kill("SIGTERM");
        for (let waited = 0; waited < TERM_MS && all.some(alive); waited += 25) await sleep(25);
        for (const pid of all.filter(alive)) signal(pid, "SIGKILL");
        while (all.some(alive)) await sleep(25);
    }
}

function lines(stream, onLine) {
    let rest = "";
    stream.setEncoding("utf8");
    stream.on("data", (text) => {
        const parts = (rest + text).split("\n");
        rest = parts.pop();
        parts.filter((line) => line.trim()).forEach(onLine);
    });
}

function signal(pid, name) {
    try {
        process.kill(pid, name);
        return true;
    } catch {
        return false;
    }
}

// A zombie is dead: whoever adopted it reaps it, or is a container's first process and does not.
function alive(pid) {
    return signal(pid, 0) && stat(pid)?.state !== "Z";
}

// What /proc says; undefined where there is none, as on macOS.
function stat(pid) {
    try {
        const [state, parent] = readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /s, "").split(" ");
        return { state, parent: Number(parent) };
    } catch {
        return undefined;
    }
}

// Every process with its parent.
function parents() {
    if (stat(process.pid)) {
        const pids = readdirSync("/proc").map(Number).filter(Boolean);
        return pids.map((pid) => [pid, stat(pid)?.parent]);
    }
    const ps = spawnSync("ps", ["-A", "-o", "pid=,ppid="], { encoding: "utf8" });
    return (ps.stdout ?? "").split("\n").map((line) => line.trim().split(/\s+/).map(Number));
}

function descendants(root) {
    const all = parents();
    const found = [root];
    for (const one of found) found.push(...all.filter(([, parent]) => parent === one).map(([pid]) => pid));
    return found.slice(1);
}
