// Runs scenarios by name. What only the test that started this can do, it is asked for: a line on stdout that begins
// with `?`, answered by a line of JSON on stdin.
import { createInterface } from 'node:readline';
import { close } from './browser.mjs';
import * as operator from './operator.mjs';
import * as pages from './pages.mjs';
import { killed } from './restart.mjs';
import { seed } from './seed.mjs';

const SCENARIOS = { ...operator, ...pages, killed };
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function asked(what) {
  process.stdout.write(`? ${what}\n`);
  const { value } = await answers.next();
  return JSON.parse(value);
}

let status = 0;
try {
  const seeded = await seed();
  for (const name of process.argv.slice(2)) {
    const began = performance.now();
    await SCENARIOS[name](seeded, asked);
    process.stderr.write(`${name}: ${Math.round(performance.now() - began)} ms\n`);
  }
} catch (error) {
  process.stderr.write(`${error.stack}\n`);
  status = 1;
}
await close();
process.exit(status);
