// Asks a server whether it is there, as an MCP client would.

const CLIENT = { name: "cogo-serve", version: "1" };

// Sends requests one after the other, and answers with their results. `WebSocket` is the class of npm's `ws`,
// since Node.js 20 has none of its own.
export function overWebSocket(WebSocket, url, requests, withinMs) {
    return new Promise((resolve, reject) => {
        const socket = new WebSocket(url, "mcp");
        const results = [];
        const end = (settle, value) => {
            clearTimeout(timer);
            socket.on("error", () => {});
            socket.terminate();
            settle(value);
        };
        const timer = setTimeout(() => end(reject, new Error(`${url} did not answer in ${withinMs} ms`)), withinMs);
        const next = () => {
            const request = requests[results.length];
            if (request === undefined) return end(resolve, results);
            socket.send(JSON.stringify({ jsonrpc: "2.0", id: results.length, ...request }));
        };
        socket.on("open", next);
        socket.on("error", (error) => end(reject, new Error(`${url}: ${error.message || error.code}`)));
        socket.on("close", () => end(reject, new Error(`${url} closed the connection`)));
        socket.on("message", (data) => {
            const answer = JSON.parse(data.toString());
            if (answer.id !== results.length) return; // Notifications go to every client.
            if (answer.error) return end(reject, new Error(`${url}: ${answer.error.message}`));
            results.push(answer.result);
            next();
        });
    });
}

// The same over streamable HTTP, for one request to a server that keeps no sessions.
export async function overHttp(url, request, withinMs) {
    const answer = await fetch(url, {
        method: "POST",
        headers: { "content-type": "application/json", accept: "application/json, text/event-stream" },
        body: JSON.stringify({ jsonrpc: "2.0", id: 0, ...request }),
        signal: AbortSignal.timeout(withinMs),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${url} answered ${answer.status}: ${text.slice(0, 200)}`);
    const line = text.split("\n").find((line) => line.startsWith("data: "));
    const { result, error } = JSON.parse(line?.slice("data: ".length) ?? text);
    if (error) throw new Error(`${url}: ${error.message}`);
    return result;
}

export const INITIALIZE = {
    method: "initialize",
    params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: CLIENT },
};
export const LIST_TOOLS = { method: "tools/list", params: {} };
// Leaves the sessions of other clients alone, who share the one server behind the bridge.
export const PING = { method: "ping" };
