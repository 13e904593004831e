// A real browser, watched: what it logs as an error, what its policy refuses, and whom it calls.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

const { HUB, TOKEN, DRIVER, SHOTS } = process.env;
const { chromium } = createRequire(join(DRIVER, 'package.json'))('playwright-core');
/** For machines that are busy with something else. */
const PATIENCE_MS = 30_000;
/** What keeps it from looking for its maker's hosts. */
const QUIET = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

let browser = null;

/** A page of its own, signed in or not. `check()` fails for whatever should not have happened in it. */
export async function open({ hash = '', signedIn = true, width = 1360, height = 900, lossy = false, ...context } = {}) {
  browser ??= await chromium.launch({ executablePath: '/usr/bin/chromium', args: QUIET });
  const held = await browser.newContext({ viewport: { width, height }, locale: 'en-US', ...context });
  if (signedIn) await held.addInitScript((token) => sessionStorage.setItem('cogo.token', token), TOKEN);
  const page = await held.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const wrong = [];
  page.on('console', (message) => {
    // A hub that was killed cannot answer; the browser says so by itself, whatever the page does.
    const lost = /ERR_(CONNECTION_REFUSED|CONNECTION_RESET|INCOMPLETE_CHUNKED_ENCODING|EMPTY_RESPONSE|SOCKET_NOT_CONNECTED|CONNECTION_ABORTED)|status of 503/.test(message.text());
    if (['error', 'warning'].includes(message.type()) && !(lossy && lost)) wrong.push(`${message.type()}: ${message.text()}`);
  });
  page.on('pageerror', (error) => wrong.push(`exception: ${error.stack}`));
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (!['data:', 'blob:'].includes(url.protocol) && url.origin !== HUB) wrong.push(`a request to ${url.origin}`);
  });
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
  });
  await page.goto(`${HUB}/#/${hash}`);
  const check = async () => {
    const violations = await page.evaluate(() => window.violations);
    assert.deepEqual([...wrong, ...violations], [], `at ${page.url()}`);
  };
  return { page, context: held, check, wrong };
}

export async function close() {
  await browser?.close();
}

/** Goes to a page, and waits until it has its data. */
export async function visit(page, hash) {
  await page.goto(`${HUB}/#/${hash}`);
  await settled(page);
}

export async function settled(page) {
  await page.waitForSelector('main h1');
  await page.waitForFunction(() => !document.querySelector('main .loading'));
}

export async function shoot(page, name) {
  mkdirSync(SHOTS, { recursive: true });
  // What is in the middle of a movement would differ from run to run, and what sticks to the top is drawn where it stands.
  await page.evaluate(() => window.scrollTo(0, 0));
  await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true, animations: 'disabled' });
}

/** A call of the hub, as anybody makes one. */
export async function api(method, path, body) {
  const response = await fetch(`${HUB}${path}`, {
    method,
    headers: { 'x-admin-token': TOKEN, ...(body ? { 'content-type': 'application/json' } : {}) },
    body: body && JSON.stringify(body),
  });
  const told = await response.json();
  assert.ok(response.ok, `${method} ${path}: ${JSON.stringify(told)}`);
  return told;
}

export function enqueue(toolset, tool, params) {
  return api('POST', '/api/mcp/enqueue', { toolset, tool, params });
}

/** Waits for a message's end. */
export async function ended(id) {
  const { message } = await api('GET', `/api/messages/${id}?wait=30s`);
  assert.ok(['done', 'failed'].includes(message.status), JSON.stringify(message));
  return message;
}
