// figma-developer-mcp: over a WebSocket by supergateway, and beside it over its own HTTP.
//
// FIGMA_API_KEY, and HTTP_PORT (3001).

import path from "node:path";

import { LIST_TOOLS, overHttp } from "../bridge/ask.mjs";
import { Refused, main, port } from "../bridge/serve.mjs";

// With it the tools can be listed, and no call succeeds.
const DUMMY_KEY = "figd_dummy";

const program = ({ home }) => path.join(home, "node_modules/figma-developer-mcp/dist/bin.js");
const options = ({ scratch }) => ["--no-telemetry", "--image-dir", scratch];
const environment = () => ({ FIGMA_API_KEY: process.env.FIGMA_API_KEY || DUMMY_KEY });

await main({
    folder: import.meta.dirname,
    port: 3007,
    settings(context) {
        context.httpPort = port("HTTP_PORT", 3001);
        if (context.httpPort === context.port && context.port !== 0) {
            throw new Refused(`PORT and HTTP_PORT are both ${context.port}; they must differ`);
        }
    },
    check({ say }) {
        if (!process.env.FIGMA_API_KEY) say("FIGMA_API_KEY is not set: tools are listed, but every call will fail");
    },
    environment,
    command: (context) => [process.execPath, program(context), "--stdio", ...options(context)],
    async beside(context, processes) {
        context.httpPort = await processes.start(
            "figma-developer-mcp",
            [program(context), "--host", context.host, "--port", String(context.httpPort), ...options(context)],
            { cwd: context.scratch, env: { ...process.env, HOST: context.host, ...environment() } },
            // It shows the end of the key.
            (line) => /_(KEY|TOKEN)\b/.test(line) || context.say(line),
        );
        context.say(`also at http://${context.host}:${context.httpPort}/mcp`);
    },
    async checkBeside({ near, httpPort }, withinMs) {
        await overHttp(`http://${near}:${httpPort}/mcp`, LIST_TOOLS, withinMs);
    },
});
