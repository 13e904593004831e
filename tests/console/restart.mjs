// The stream of events, while the hub is killed and comes back.
import assert from 'node:assert/strict';
import { api, ended, enqueue, open, settled } from './browser.mjs';

const shown = (page) => page.$$eval('[data-cursor]', (lines) => lines.map(({ dataset }) => dataset.event));

/** Waits until the page shows these very events, the newest first. */
async function same(page, since) {
  let told = null;
  for (let look = 0; look < 300; look += 1) {
    const { events } = await api('GET', `/api/events?toolset=demo&since=${encodeURIComponent(since)}&limit=500`);
    const wanted = events.map(({ id }) => id);
    const lines = await shown(page);
    told = { wanted, lines: lines.slice(0, wanted.length) };
    assert.equal(new Set(lines).size, lines.length, 'an event is shown twice');
    if (wanted.length && JSON.stringify(told.wanted) === JSON.stringify(told.lines)) return wanted.length;
    await new Promise((done) => setTimeout(done, 100));
  }
  assert.fail(`the page and the log differ: ${JSON.stringify(told)}`);
}

export async function killed(seeded, asked) {
  const { page, check } = await open({ hash: 'events?toolset=demo', lossy: true });
  await settled(page);
  await page.waitForSelector('[data-stream="live"]');
  const { at: since } = await api('GET', '/api/metrics/summary?window_s=60');
  const some = async (name) => {
    for (let n = 0; n < 5; n += 1) await ended((await enqueue('demo', 'echo', { message: `${name} ${n}` })).id);
  };
  await some('before');
  const before = await same(page, since);
  assert.ok(before >= 10, `${before} events`);

  await asked('kill');
  await page.waitForSelector('[data-stream="lost"]');
  await page.waitForSelector('.banner');
  await asked('start');
  // What happens before the page has its stream back must come as well.
  await some('meanwhile');
  await page.waitForSelector('[data-stream="live"]');
  await page.waitForFunction(() => !document.querySelector('.banner'));
  await some('after');
  assert.ok((await same(page, since)) >= before + 20);

  await page.click('#pause');
  await page.waitForSelector('[data-stream="paused"]');
  const still = (await shown(page)).length;
  await some('paused');
  assert.equal((await shown(page)).length, still, 'what is paused goes on');
  await page.click('#pause');
  await same(page, since);
  await check();
}
