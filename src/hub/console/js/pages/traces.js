// All traces, the newest first.

import { get } from '../api.js';
import { h, raw } from '../dom.js';
import { number, short } from '../format.js';
import { t } from '../i18n.js';
import { choiceFilter, filters, listing, textFilter, title } from '../listing.js';
import { classBadge, empty, firstCall, status, table, toolName, took, when } from '../parts.js';
import { to } from '../router.js';

const NAMES = ['status', 'toolset', 'tool', 'tenant'];

export default {
  show(main, { query, signal }) {
    let list = null;
    const at = () => list;
    main.append(
      title(t('nav.traces'), t('traces.says')),
      filters(
        textFilter('toolset', t('col.toolset'), at, { first: true }),
        textFilter('tool', t('col.tool'), at),
        choiceFilter('status', t('col.status'), at, [['', t('filter.any')], ...['failed', 'waiting', 'done'].map((word) => [word, t(`status.${word}`)])]),
        textFilter('tenant', t('col.tenant'), at),
        opener(),
      ),
    );
    const place = h('div', { class: 'panel flush' });
    main.append(place);
    list = listing({
      place,
      query: Object.fromEntries(Object.entries(query).filter(([name]) => NAMES.includes(name))),
      signal,
      load: async (asked, after, within) => {
        const { traces, next } = await get('/api/traces', { ...asked, after, limit: 60 }, within);
        return { rows: traces, next };
      },
      draw: (rows) => (rows.length ? table(columns(), rows, { key: (row) => row.trace_id, caption: t('nav.traces') }) : nothing(list?.query() ?? query)),
    });
  },
};

function nothing(query) {
  const filtered = NAMES.some((name) => query[name]);
  return filtered ? empty(t('traces.none_fit'), t('traces.none_fit_says')) : empty(t('traces.none'), t('traces.none_says'), firstCall());
}

/** Someone has an id from a log or an answer: straight there. */
function opener() {
  const input = h('input', { type: 'text', spellcheck: 'false', autocomplete: 'off', placeholder: '5d213611-…', 'aria-label': t('traces.open') });
  input.addEventListener('keydown', (event) => {
    const id = input.value.trim();
    if (event.key === 'Enter' && id) location.hash = to('trace', [id]);
  });
  return h('label', { class: 'filter' }, h('span', {}, t('traces.open')), input);
}

function columns() {
  return [
    { head: t('col.trace'), cell: (row) => h('a', { href: to('trace', [row.trace_id]), translate: 'no', class: 'mono nowrap', title: row.trace_id }, short(row.trace_id)) },
    { head: t('col.tool'), cell: (row) => toolName(row.toolset, row.tool) },
    { head: t('col.status'), cell: (row) => status(row.status) },
    { head: t('col.error'), class: 'rest', cell: (row) => (row.error ? h('div', { class: 'cut' }, classBadge(row.error.class), raw(row.error.message, 'clip')) : raw('–', 'dim nil')) },
    { head: t('col.attempts'), class: 'right num', cell: (row) => raw(number(row.attempts)) },
    { head: t('col.messages'), class: 'right num', cell: (row) => raw(number(row.messages), row.messages > 1 ? '' : 'dim') },
    { head: t('col.took'), class: 'right', cell: (row) => took(row.status === 'waiting' ? Date.now() - new Date(row.first_at) : new Date(row.last_at) - new Date(row.first_at)) },
    { head: t('col.began'), class: 'right', cell: (row) => when(row.first_at) },
    { head: t('col.tenant'), cell: (row) => raw(row.tenant, 'dim') },
  ];
}
