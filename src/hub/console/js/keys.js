// The keyboard: everything that a pointer can do, and the way about in two strokes.

import { show } from './dialog.js';
import { h } from './dom.js';
import { t } from './i18n.js';

const GO = { o: 'overview', t: 'traces', d: 'dead-letters', w: 'workers', c: 'circuits', l: 'tools', e: 'events', a: 'artifacts' };
/** How long after `g` a letter belongs to it. */
const TOGETHER_MS = 1200;

let gone = 0;

const isTyping = (at) => at.matches('input, textarea, select, [contenteditable]');

export function keys() {
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (walk(event)) return;
    if (isTyping(event.target) || document.querySelector('dialog[open]')) return;
    if (event.key === '?') act(event, help);
    else if (event.key === '/') act(event, focusFilter);
    else if (event.key === 'g') gone = event.timeStamp;
    else if (event.timeStamp - gone < TOGETHER_MS && GO[event.key]) {
      gone = 0;
      act(event, () => {
        location.hash = `#/${GO[event.key]}`;
      });
    } else if (event.key === 'p') document.getElementById('pause')?.click();
    else if (event.key === 'j' || event.key === 'k') act(event, () => step(event.key === 'j' ? 1 : -1));
  });
}

function act(event, run) {
  event.preventDefault();
  run();
}

function focusFilter() {
  const filter = document.querySelector('[data-filter]');
  filter?.focus();
  filter?.select?.();
}

/** The arrow keys in the navigation and in tables. */
function walk(event) {
  const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  const roving = event.target.closest?.('[data-roving]');
  if (roving && by) return move([...roving.querySelectorAll('a, button')], event.target, by, event);
  const rows = event.target.closest?.('[data-walk]');
  if (rows && (event.key === 'ArrowDown' || event.key === 'ArrowUp') && !isTyping(event.target)) return move(own(rows), event.target.closest('tr, li')?.querySelector('a, button'), by, event);
  return false;
}

function move(all, from, by, event) {
  const next = all[all.indexOf(from) + by];
  event.preventDefault();
  next?.focus();
  return true;
}

/** What each row of a list has as its own: its first link or button. */
function own(rows) {
  return [...rows.querySelectorAll(':scope > tr, :scope > li')].map((row) => row.querySelector('a, button')).filter(Boolean);
}

function step(by) {
  const lists = [...document.querySelectorAll('[data-walk]')];
  const within = document.activeElement?.closest('[data-walk]');
  const all = own(within ?? lists.find((list) => own(list).length) ?? document.body);
  const at = all.indexOf(document.activeElement?.closest('tr, li')?.querySelector('a, button'));
  (all[at + by] ?? (at < 0 ? all[0] : null))?.focus();
}

export function help() {
  const row = (pressed, says) => h('tr', {}, h('td', {}, pressed.map((key) => h('kbd', { translate: 'no' }, key))), h('td', {}, says));
  show(
    t('help.title'),
    [
      h('p', {}, t('help.says')),
      h(
        'table',
        { class: 'table keys' },
        h(
          'tbody',
          {},
          Object.entries(GO).map(([key, page]) => row(['g', key], t(`nav.${page}`))),
          row(['/'], t('help.filter')),
          row(['j', 'k'], t('help.rows')),
          row(['↑', '↓'], t('help.arrows')),
          row(['Enter'], t('help.open')),
          row(['p'], t('help.pause')),
          row(['Esc'], t('help.close')),
          row(['?'], t('help.this')),
        ),
      ),
      h('h3', {}, t('help.words')),
      h('dl', { class: 'words' }, ['message', 'trace', 'attempt', 'dead_letter', 'circuit', 'worker', 'toolset'].map((word) => [h('dt', {}, t(`word.${word}`)), h('dd', {}, t(`word.${word}_says`))])),
    ],
    { wide: true },
  );
}
