// @playwright/mcp with the Chromium of this machine, over a WebSocket by supergateway.
//
// CHROMIUM (/usr/bin/chromium), and CHROMIUM_SANDBOX: `off` where the kernel or the container forbids its sandbox.

import { accessSync, constants } from "node:fs";
import path from "node:path";

import { Refused, main } from "../bridge/serve.mjs";

const chromium = process.env.CHROMIUM || "/usr/bin/chromium";

// Chromium refuses to have a sandbox as root.
function sandbox() {
    const wanted = process.env.CHROMIUM_SANDBOX || (process.getuid() === 0 ? "off" : "on");
    if (!["on", "off"].includes(wanted)) throw new Refused(`CHROMIUM_SANDBOX is '${wanted}'; it must be on or off`);
    return wanted === "on" ? "--sandbox" : "--no-sandbox";
}

await main({
    folder: import.meta.dirname,
    port: 3004,
    check() {
        sandbox();
        try {
            accessSync(chromium, constants.X_OK);
        } catch {
            throw new Refused(`CHROMIUM: ${chromium} is no program; install Chromium (Debian: apt-get install chromium) or set CHROMIUM to the path of Chromium or Chrome`);
        }
    },
    command: ({ home, scratch }) => [
        process.execPath,
        path.join(home, "node_modules/@playwright/mcp/cli.js"),
        ...["--headless", "--isolated", sandbox()],
        ...["--executable-path", chromium, "--output-dir", scratch],
    ],
});
