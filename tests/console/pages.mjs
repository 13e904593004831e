// Every page has its data, in both languages, in both themes, and on a phone; nothing that is seen was left out of the
// catalogues.
import assert from 'node:assert/strict';
import { open, settled, shoot, visit } from './browser.mjs';

/** Each page, and what it must show of what was seeded. */
function pages({ crashed, refused, picture }) {
  return {
    overview: { hash: 'overview?window_s=300', has: ['shop/refuse', 'tool_error', 'mcp.call.shop.crash'] },
    traces: { hash: 'traces', has: ['shop/crash', 'demo/echo', 'invalid_params'] },
    'trace-failed': { hash: `trace/${crashed.trace_id}`, has: ['no answer from crash', 'closed', 'attempts_exhausted', 'error.json', '"class"'] },
    'trace-done': { hash: `trace/${picture.trace_id}`, has: ['shop/picture', 'a chessboard'], image: true },
    'trace-refused': { hash: `trace/${refused.trace_id}`, has: ['order A-17 was cancelled by its customer', 'not_retried', 'retry_on'] },
    'dead-letters': { hash: 'dead-letters', has: ['shop/refuse', 'demo/nothere', 'not_retried'] },
    workers: { hash: 'workers', has: ['mcp-gateway/shop', 'mcp-gateway/demo'] },
    circuits: { hash: 'circuits', has: ['mcp.call.shop.crash', 'failure_rate'] },
    tools: { hash: 'tools', has: ['picture', 'refuse', 'echo'] },
    'tools-form': { hash: 'tools/shop/order', has: ['customer', 'address', 'street', 'tags', 'string[]'] },
    events: { hash: 'events', has: ['mcp_call_scheduled', 'mcp_call_failed', 'circuit_opened'] },
    artifacts: { hash: 'artifacts', has: ['mcp/shop/', 'summary.json'] },
  };
}

async function shows(page, { has, image }, name) {
  for (const words of has) {
    await page.waitForFunction((wanted) => document.querySelector('main').textContent.includes(wanted), words).catch(() => assert.fail(`${name} does not show ${words}`));
  }
  if (image) {
    const drawn = await page.waitForFunction(() => {
      const picture = document.querySelector('main img.picture');
      return picture?.complete && picture.naturalWidth;
    });
    assert.equal(await drawn.jsonValue(), 24, 'the picture of the tool');
  }
}

export async function every(seeded) {
  const looks = {
    light: { colorScheme: 'light' },
    dark: { colorScheme: 'dark' },
    phone: { width: 360, height: 780, hasTouch: true },
    ko: { locale: 'ko-KR' },
  };
  for (const [look, context] of Object.entries(looks)) {
    const { page, check } = await open(context);
    for (const [name, wanted] of Object.entries(pages(seeded))) {
      await visit(page, wanted.hash);
      await shows(page, wanted, `${name} (${look})`);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      assert.ok(wide <= 0, `${name} (${look}) is ${wide} pixels too wide`);
      if (look === 'dark') {
        const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
        const [red] = /\d+/.exec(ground);
        assert.ok(Number(red) < 60, `${name} is not dark: ${ground}`);
      }
      if (look === 'ko') {
        assert.equal(await page.getAttribute('html', 'lang'), 'ko');
        assert.match(await page.textContent('main h1, main .crumbs'), /[가-힣]/, `${name} is not Korean`);
      }
      await shoot(page, `${name}-${look}`);
    }
    await check();
  }
}

/** The language and the theme are chosen by hand as well, and stay. */
export async function choices() {
  const { page, check } = await open({ hash: 'overview' });
  await settled(page);
  await page.selectOption('#language', 'ko');
  await page.waitForFunction(() => document.querySelector('main h1')?.textContent === '개요');
  await page.click('#theme');
  await page.click('#theme');
  await page.reload();
  await settled(page);
  assert.equal(await page.textContent('main h1'), '개요');
  assert.equal(await page.getAttribute('html', 'data-theme'), 'dark');
  await check();
}

/** Every word that is seen is a catalogue's, or is data and says so. */
export async function literals(seeded) {
  const { page, check } = await open({ locale: 'ko-KR' });
  await page.route('**/console/i18n/ko.js', async (route) => {
    const response = await route.fetch();
    const text = (await response.text()).replace(/^(\s+'[^']+': )'((?:[^'\\]|\\.)*)',$/gm, "$1'⟦$2⟧',");
    await route.fulfill({ response, body: text });
  });
  await page.reload();
  const all = { ...pages(seeded), nothing: { hash: 'traces?toolset=nobody' }, help: { hash: 'overview' } };
  for (const [name, { hash }] of Object.entries(all)) {
    await visit(page, hash);
    if (name === 'help') await page.keyboard.press('?');
    const bare = await page.evaluate(() => {
      const found = [];
      const letters = /\p{L}{2,}/u;
      const within = (words) => /⟦.*⟧/su.test(words);
      const isData = (element) => element.closest('[translate="no"], script, style, noscript, datalist') !== null;
      const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
      for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        if (node.nodeType === Node.TEXT_NODE) {
          const words = node.data.trim();
          // A sentence with data in its middle is cut there: its first piece opens the bracket, its last closes it.
          if (letters.test(words) && !isData(node.parentElement) && !within(node.parentElement.textContent)) found.push(words);
          continue;
        }
        for (const attribute of ['aria-label', 'title', 'placeholder', 'alt']) {
          const words = node.getAttribute(attribute) ?? '';
          if (letters.test(words) && !isData(node) && !within(words) && !/^\d{4}-\d\d-\d\dT|^COGO$/.test(words)) found.push(`${attribute}: ${words}`);
        }
      }
      return found;
    });
    assert.deepEqual(bare, [], `words on ${name} that are in no catalogue and are not marked as data`);
  }
  await check();
}
