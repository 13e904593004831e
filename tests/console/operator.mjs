// What an operator does, with a pointer and without one.
import assert from 'node:assert/strict';
import { api, ended, enqueue, open, settled, shoot, visit } from './browser.mjs';

const { TOKEN } = process.env;

/** Signs in with the wrong token and the right one, switches to read only, and signs out. */
export async function signing() {
  const { page, check } = await open({ hash: 'dead-letters', signedIn: false });
  await settled(page);
  const actions = '[data-requeue], #requeue-all';
  await page.waitForSelector('main tbody tr');
  assert.equal(await page.locator(actions).count(), 0, 'someone who has not signed in is shown actions');
  await page.click('#sign-in');
  await page.fill('#token', 'not-the-token-of-this-hub');
  await page.keyboard.press('Enter');
  await page.waitForSelector('dialog .note-bad');
  await shoot(page, 'sign-in-wrong');
  assert.equal(await page.evaluate(() => sessionStorage.getItem('cogo.token')), null, 'a wrong token was kept');
  await page.fill('#token', TOKEN);
  await page.keyboard.press('Enter');
  await page.waitForSelector('#sign-out');
  await page.waitForSelector(actions);
  assert.equal(await page.evaluate(() => localStorage.getItem('cogo.token')), null, 'the token outlives the tab');

  await page.click('#read-only');
  await page.waitForFunction((of) => !document.querySelector(of), actions);
  await visit(page, 'tools/demo/echo');
  assert.equal(await page.locator('#call').count(), 0, 'a tool can be called in read-only mode');
  await page.click('#read-only');
  await page.waitForSelector('#call');
  await page.click('#sign-out');
  await page.waitForSelector('#sign-in');
  assert.equal(await page.evaluate(() => sessionStorage.getItem('cogo.token')), null);
  await check();
}

/** What someone else enqueues appears without a reload. */
export async function arriving() {
  const { page, check } = await open({ hash: 'traces?toolset=demo' });
  await settled(page);
  await page.waitForSelector('.live-live');
  await page.evaluate(() => (window.sameDocument = true));
  const { trace_id } = await enqueue('demo', 'echo', { message: 'live' });
  await page.waitForSelector(`[data-key="${trace_id}"]`);
  assert.ok(await page.evaluate(() => window.sameDocument), 'the page was loaded anew');
  await check();
}

/** A requeue with other params; `asked` looks into the database. */
export async function requeue({ refused }, asked) {
  const { page, check } = await open({ hash: 'dead-letters?service=shop' });
  await settled(page);
  await page.click(`[data-requeue="${refused.id}"]`);
  await page.fill('dialog textarea', '{"order": ');
  await page.click('dialog button[type=submit]');
  await page.waitForSelector('dialog .note-bad');
  await page.fill('dialog textarea', '{"order": "B-18"}');
  await page.fill('dialog input', 'the customer called');
  await shoot(page, 'requeue');
  await page.click('dialog button[type=submit]');
  await page.waitForSelector('.toast-ok');
  await ended(refused.id);
  assert.deepEqual(await asked(`requeued ${refused.id}`), { requeued: 1, order: 'B-18' });

  // All of a filter at once.
  await visit(page, 'dead-letters?service=demo');
  await page.click('#requeue-all');
  await page.click('dialog button[type=submit]');
  await page.waitForSelector('.toast-ok');
  // The toast may be that of the requeue before, and the log shows nothing above its oldest open transaction.
  const requeued = async () => (await api('GET', '/api/events?type=mcp_call_requeued&toolset=demo')).events.length;
  const began = Date.now();
  while ((await requeued()) === 0 && Date.now() - began < 30_000) {
    await new Promise((next) => setTimeout(next, 100));
  }
  assert.equal(await requeued(), 1);
  await check();
}

/** Calls a tool by the form that its schema made. */
export async function calling() {
  const { page, check } = await open({ hash: 'tools/shop/order' });
  await settled(page);
  const of = (path) => page.locator(`[data-path="${path}"]`);
  await of('pieces').locator('input').fill('a few');
  await of('customer').locator('textarea').fill('<img src=x onerror=alert(1)>');
  await page.click('#call');
  await page.waitForSelector('.field.is-wrong[data-path="pieces"]');
  await of('pieces').locator('input').fill('3');
  await of('discount').locator('input').fill('0.5');
  await of('express').locator('select').selectOption('true');
  await of('size').locator('select').selectOption({ label: 'large' });
  await of('tags').locator('button').last().click();
  await of('tags[0]').locator('textarea').fill('gift');
  await of('address.street').locator('textarea').fill('Main');
  await of('extra').locator('textarea').fill('{"a": [1, null]}');
  await page.click('#call');
  await page.waitForSelector('.outcome-ok');
  await page.waitForFunction(() => document.querySelector('.split-body').textContent.includes('"taken": true'));
  await shoot(page, 'tools-result');
  const link = await page.getAttribute('.outcome-panel a', 'href');
  const trace = link.split('/').pop();
  const { events } = await api('GET', `/api/traces/${trace}`);
  assert.deepEqual(events[0].payload.payload.params, {
    customer: '<img src=x onerror=alert(1)>',
    pieces: 3,
    discount: 0.5,
    express: true,
    size: 'large',
    tags: ['gift'],
    address: { street: 'Main' },
    extra: { a: [1, null] },
  });
  assert.equal(await page.locator('img[src="x"]').count(), 0, 'what a person wrote became an element');
  // As JSON, and back.
  await page.click('#as-json');
  assert.match(await page.inputValue('.split-body form .code-input'), /"street": "Main"/);

  await visit(page, 'tools/shop/picture');
  await page.click('#call');
  await page.waitForFunction(() => document.querySelector('.result img.picture')?.naturalWidth === 24);
  await check();
}

/** From the overview to why a call failed, and to what can be done, by the keyboard alone. */
export async function keyboard({ crashed }) {
  const { page, check } = await open({ hash: 'traces' });
  await settled(page);
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.className), 'skip', 'the first stop is no skip link');
  await page.keyboard.press('g');
  await page.keyboard.press('o');
  await page.waitForSelector('.feed-link');
  // Down the list of failures to the one that crashed.
  const wanted = () => document.activeElement.closest('.feed-link')?.textContent.includes('shop/crash');
  for (let tabs = 0; tabs < 60 && !(await page.evaluate(() => document.activeElement.matches('.feed-link'))); tabs += 1) await page.keyboard.press('Tab');
  for (let rows = 0; rows < 8 && !(await page.evaluate(wanted)); rows += 1) await page.keyboard.press('ArrowDown');
  assert.ok(await page.evaluate(wanted), 'the failure cannot be reached');
  const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(ring, 'solid', 'the focus is not seen');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.why');
  const told = await page.textContent('.why');
  for (const words of ['no answer from crash: the server ended', 'closed', 'attempts_exhausted', 'mcp.call.shop.crash', 'then requeue']) assert.ok(told.includes(words), `why it failed leaves out ${words}: ${told}`);
  assert.ok(page.url().includes(crashed.trace_id));
  for (let tabs = 0; tabs < 60 && !(await page.evaluate(() => document.activeElement.id === 'requeue')); tabs += 1) await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.waitForSelector('dialog[open]');
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => !document.querySelector('dialog'));
  assert.equal(await page.evaluate(() => document.activeElement.id), 'requeue', 'the focus was lost with the dialog');
  await page.keyboard.press('g');
  await page.keyboard.press('d');
  await page.waitForSelector('main tbody tr');
  await page.keyboard.press('/');
  assert.ok(await page.evaluate(() => document.activeElement.matches('[data-filter]')), '/ does not lead to the filter');
  await page.keyboard.press('Escape');
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press('?');
  await page.waitForSelector('dialog kbd');
  await shoot(page, 'help');
  await check();
}

/** The breakers: opened, and closed again, by hand. */
export async function circuits() {
  const { page, check } = await open({ hash: 'circuits' });
  await settled(page);
  await page.click('[data-action="close"]');
  await page.click('dialog button[type=submit]');
  await page.waitForSelector('.toast-ok');
  await page.waitForSelector('main .badge-ok');
  const { circuits: all } = await api('GET', '/api/circuits');
  assert.ok(all.every(({ state }) => state === 'closed'), JSON.stringify(all));
  await check();
}
