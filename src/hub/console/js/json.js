// JSON as people read it: coloured, indented, foldable where it is long.

import { h } from './dom.js';
import { copyButton } from './parts.js';
import { t } from './i18n.js';

/** What is longer is shown as it is: a tree of a million elements helps nobody. */
const TREE_MAX = 200_000;

export function json(value, { copy = true, label } = {}) {
  const text = JSON.stringify(value, null, 2) ?? 'undefined';
  const body = h('pre', { class: 'json', translate: 'no', tabindex: '0', 'aria-label': label ?? t('json.label') }, text.length > TREE_MAX ? text : tree(value, ''));
  return h('div', { class: 'json-frame' }, body, copy ? copyButton(() => text) : null);
}

function tree(value, indent) {
  if (value === null) return h('span', { class: 'j-null' }, 'null');
  if (typeof value === 'string') return h('span', { class: 'j-string' }, JSON.stringify(value));
  if (typeof value !== 'object') return h('span', { class: typeof value === 'number' ? 'j-number' : 'j-bool' }, String(value));
  const list = Array.isArray(value);
  const entries = Object.entries(value);
  const [open, close] = list ? ['[', ']'] : ['{', '}'];
  if (!entries.length) return `${open}${close}`;
  const inner = `${indent}  `;
  return [
    open,
    entries.map(([key, of], index) => ['\n', inner, list ? null : [h('span', { class: 'j-key' }, JSON.stringify(key)), ': '], tree(of, inner), index < entries.length - 1 ? ',' : null]),
    '\n',
    indent,
    close,
  ];
}

/** Text that may be JSON. */
export function jsonOrText(text) {
  try {
    return json(JSON.parse(text));
  } catch {
    return plain(text);
  }
}

export function plain(text) {
  return h('div', { class: 'json-frame' }, h('pre', { class: 'json', translate: 'no', tabindex: '0' }, text), copyButton(() => text));
}
