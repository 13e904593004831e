// The catalogues say the same things: the same keys, with the same places for data, and nothing that nobody says.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [console_] = process.argv.slice(2);
const files = readdirSync(join(console_, 'i18n'));
const catalogues = await Promise.all(files.map(async (file) => [file, (await import(pathToFileURL(join(console_, 'i18n', file)))).default]));
const [, english] = catalogues.find(([file]) => file === 'en.js');
const places = (words) => (words.match(/\{\w+\}/g) ?? []).sort();
assert.ok(catalogues.length >= 2);
for (const [file, words] of catalogues) {
  assert.deepEqual(Object.keys(words).sort(), Object.keys(english).sort(), file);
  for (const [key, said] of Object.entries(words)) {
    assert.ok(said.trim(), `${file}: ${key} says nothing`);
    assert.deepEqual(places(said), places(english[key]), `${file}: ${key}`);
  }
}

const source = ['js', 'js/pages'].flatMap((dir) => readdirSync(join(console_, dir)).filter((file) => file.endsWith('.js')).map((file) => readFileSync(join(console_, dir, file), 'utf8'))).join('\n');
assert.ok(!/innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function/.test(source), 'data could become markup');
const named = new Set([...source.matchAll(/['`]([a-z_-]+\.[a-z0-9_.-]+)['`]/g)].map(([, key]) => key));
const begun = [...source.matchAll(/`([a-z_.-]+\.(?:[a-z]+_)?)\$\{/g)].map(([, start]) => start);
for (const key of Object.keys(english)) {
  const plain = key.replace(/\.(one|other)$/, '');
  assert.ok(named.has(plain) || begun.some((start) => plain.startsWith(start)), `${key} is said nowhere`);
}
