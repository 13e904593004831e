// Installs what a folder pins, once for the same pins, whichever process is first.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import path from "node:path";

// Where what `folder` pins is or will be, below `base`.
export function home(folder, base) {
    const lock = readFileSync(path.join(folder, "package-lock.json"));
    const pins = createHash("sha256").update(lock).digest("hex").slice(0, 12);
    return path.join(base, path.basename(folder), pins);
}

// Installs it to `home`. Throws when npm fails.
export function install(folder, home, say) {
    if (existsSync(home)) return;

    say(`installing what is pinned below ${home}`);
    mkdirSync(path.dirname(home), { recursive: true });
    const fresh = mkdtempSync(path.join(path.dirname(home), ".installing-"));
    try {
        for (const file of ["package.json", "package-lock.json"]) {
            copyFileSync(path.join(folder, file), path.join(fresh, file));
        }
        // No scripts: what they would fetch is in no lock file.
        const options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--loglevel=error"];
        const npm = spawnSync("npm", options, { cwd: fresh, stdio: ["ignore", process.stderr, process.stderr] });
        if (npm.error) throw new Error(`npm could not be started (${npm.error.code}); install it beside Node.js`);
        if (npm.status !== 0) throw new Error("npm ci failed; what it said is above");
        // In an image root installs, and another user runs.
        chmodSync(fresh, 0o755);
        // At once and whole, so that nobody starts what is half installed.
        renameSync(fresh, home);
    } catch (error) {
        rmSync(fresh, { recursive: true, force: true });
        // Another was faster.
        if (!["ENOTEMPTY", "EEXIST"].includes(error.code)) throw error;
    }
}
