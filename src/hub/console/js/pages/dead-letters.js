// What failed for good: why, and what to do about it.

import { dropMany, requeueMany, requeueOne } from '../act.js';
import { get } from '../api.js';
import { code, h, raw } from '../dom.js';
import { number } from '../format.js';
import { count, has, t } from '../i18n.js';
import { choiceFilter, filters, listing, textFilter, title } from '../listing.js';
import { button, classBadge, empty, table, toolOf, when } from '../parts.js';
import { to } from '../router.js';
import { mayAct } from '../session.js';

const CLASSES = ['connect', 'timeout', 'closed', 'tool_error', 'invalid_params', 'protocol', 'ambiguous', 'circuit_open', 'lease_expired', 'deadline_exceeded', 'internal'];
const REASONS = ['attempts_exhausted', 'not_retried', 'deadline_exceeded', 'lease_expired'];
const NAMES = ['service', 'class', 'reason', 'tenant', 'role', 'trace_id'];
/** The most that one sweep takes. */
const SWEEP_MAX = 10_000;

export default {
  show(main, { query, signal }) {
    let list = null;
    const at = () => list;
    const chosen = new Set();
    main.append(
      title(t('nav.dead-letters'), t('dead.says')),
      filters(
        textFilter('service', t('col.toolset'), at, { first: true }),
        choiceFilter('class', t('col.class'), at, [['', t('filter.any')], ...CLASSES.map((word) => [word, word, true])]),
        choiceFilter('reason', t('col.reason'), at, [['', t('filter.any')], ...REASONS.map((word) => [word, word, true])]),
        textFilter('tenant', t('col.tenant'), at),
      ),
    );
    const place = h('div', { class: 'panel flush' });
    main.append(place);
    list = listing({
      place,
      query: Object.fromEntries(Object.entries(query).filter(([name]) => NAMES.includes(name))),
      signal,
      concerns: (event) => /_(dead_lettered|requeued|dropped)$/.test(event.event_type) || event.event_type === 'messages_purged',
      load: async (asked, after, within) => ({ rows: (await get('/api/dead-letters', { ...asked, limit: 100 }, within)).messages, next: null }),
      draw: (rows) => {
        // What is no longer there cannot be chosen.
        for (const id of chosen) if (!rows.some((row) => row.id === id)) chosen.delete(id);
        if (!rows.length) return nothing(list?.query() ?? query);
        return [mayAct() ? bar(rows, chosen, list) : null, table(columns(chosen, list), rows, { key: (row) => row.id, caption: t('nav.dead-letters'), rowClass: (row) => (chosen.has(row.id) ? 'is-chosen' : null) })];
      },
    });
  },
};

function nothing(query) {
  const filtered = NAMES.some((name) => query[name]);
  return filtered ? empty(t('dead.none_fit'), t('dead.none_fit_says')) : empty(t('dead.none'), t('dead.none_says'));
}

function bar(rows, chosen, list) {
  const ids = [...chosen];
  const filter = list.query();
  const whole = Object.keys(filter).length ? t('dead.those_that_fit') : t('dead.every');
  const after = () => {
    chosen.clear();
    list.refresh();
  };
  return h(
    'div',
    { class: 'bulk' },
    h('label', { class: 'check' }, h('input', { type: 'checkbox', id: 'choose-all', checked: rows.every((row) => chosen.has(row.id)), on: { change: (event) => (rows.forEach((row) => (event.target.checked ? chosen.add(row.id) : chosen.delete(row.id))), list.redraw()) } }), h('span', {}, ids.length ? count('dead.chosen', ids.length) : t('dead.choose'))),
    ids.length
      ? [
          button(t('action.requeue'), () => requeueMany({ ids }, count('ask.requeue_n', ids.length), after), { small: true, tone: 'primary', sign: 'retry', id: 'requeue-chosen' }),
          button(t('action.drop'), () => dropMany({ ids }, count('ask.drop_n', ids.length), after), { small: true, sign: 'trash' }),
        ]
      : [
          button(t('dead.requeue_all'), () => requeueMany({ filter, max: SWEEP_MAX }, t('ask.requeue_all', { which: whole, max: number(SWEEP_MAX) }), after), { small: true, sign: 'retry', id: 'requeue-all' }),
          button(t('dead.drop_all'), () => dropMany({ filter, max: SWEEP_MAX }, t('ask.drop_all', { which: whole, max: number(SWEEP_MAX) }), after), { small: true, sign: 'trash' }),
        ],
    h('span', { class: 'dim bulk-count' }, rows.length >= 100 ? t('dead.first_100') : count('dead.count', rows.length)),
  );
}

function columns(chosen, list) {
  const act = mayAct();
  return [
    act
      ? {
          head: h('span', { class: 'unseen' }, t('dead.choose')),
          class: 'check-cell',
          cell: (row) => h('input', { type: 'checkbox', 'aria-label': t('dead.choose_one', { id: row.id.slice(-8) }), checked: chosen.has(row.id), on: { change: (event) => (event.target.checked ? chosen.add(row.id) : chosen.delete(row.id), list.redraw()) } }),
        }
      : null,
    { head: t('col.tool'), class: 'own', cell: (row) => h('a', { href: to('trace', [row.trace_id], { message: row.id }) }, toolOf(row)) },
    { head: t('col.why'), class: 'wide', cell: (row) => h('div', { class: 'cause' }, h('p', {}, classBadge(row.class), ' ', raw(row.error?.message ?? '', 'clip-2')), h('p', { class: 'dim' }, has(`class.${row.class}.do`) ? t(`class.${row.class}.do`) : t('class.unknown.do'))) },
    { head: t('col.reason'), cell: (row) => code(row.reason ?? '–') },
    { head: t('col.attempts'), class: 'right num', cell: (row) => raw(`${row.attempts}/${row.max_attempts}`) },
    { head: t('col.died'), class: 'right', cell: (row) => when(row.done_at ?? row.updated_at) },
    { head: t('col.tenant'), cell: (row) => raw(row.tenant, 'dim') },
    act ? { head: h('span', { class: 'unseen' }, t('col.actions')), class: 'right', cell: (row) => button(t('action.requeue'), () => requeueOne(row, list.refresh), { small: true, sign: 'retry', data: { requeue: row.id } }) } : null,
  ].filter(Boolean);
}
