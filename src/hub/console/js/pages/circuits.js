// The breakers: where each stands, what its window held, and what an operator may do.

import { circuitActions } from '../act.js';
import { get } from '../api.js';
import { code, h, raw, s } from '../dom.js';
import { number, percent, span } from '../format.js';
import { has, t } from '../i18n.js';
import { choiceFilter, filters, listing, textFilter, title } from '../listing.js';
import { empty, note, status, table, when } from '../parts.js';
import { to } from '../router.js';

export default {
  show(main, { query, signal }) {
    let list = null;
    const at = () => list;
    main.append(
      title(t('nav.circuits'), t('circuits.says')),
      note('plain', 'help', t('circuits.teach')),
      filters(
        textFilter('q', t('col.key'), at, { first: true }),
        choiceFilter('state', t('col.status'), at, [['', t('filter.any')], ...['open', 'half_open', 'closed'].map((word) => [word, t(`status.${word}`)])]),
      ),
    );
    const place = h('div', { class: 'panel flush' });
    main.append(place);
    list = listing({
      place,
      query,
      signal,
      every: 2500,
      concerns: (event) => event.event_type.startsWith('circuit_'),
      load: async ({ state }, after, within) => ({ rows: (await get('/api/circuits', { state }, within)).circuits, next: null }),
      draw: (rows) => {
        const wanted = (list?.query() ?? query).q;
        const fit = wanted ? rows.filter(({ key }) => key.includes(wanted)) : rows;
        if (!rows.length) return empty(t('circuits.none'), t('circuits.none_says'));
        if (!fit.length) return empty(t('circuits.none_fit'), t('circuits.none_fit_says'));
        return table(columns(() => list.refresh()), fit, { key: (row) => `${row.tenant}/${row.key}`, caption: t('nav.circuits') });
      },
    });
  },
};

/** Its reason: the breaker's own words are explained, an operator's are as they were written. */
export function whyOf({ reason }) {
  if (!reason) return raw('–', 'dim');
  return has(`circuit.${reason}`) ? [code(reason), h('p', { class: 'dim' }, t(`circuit.${reason}`))] : raw(reason);
}

/** `mcp.call.shop.crash.0` leads to what was called. */
function tracesOf(key) {
  const [, call, toolset, tool] = key.split('.');
  return call === 'call' && toolset ? to('traces', [], { toolset, tool }) : to('traces');
}

function columns(refresh) {
  return [
    { head: t('col.key'), class: 'own', cell: (row) => h('a', { href: tracesOf(row.key), translate: 'no', class: 'mono' }, row.key) },
    { head: t('col.status'), cell: (row) => [status(row.state), row.forced ? h('p', { class: 'dim' }, t('circuits.forced')) : null] },
    { head: t('col.window'), cell: windowOf },
    { head: t('col.why'), class: 'wide', cell: (row) => whyOf(row) },
    { head: t('col.next'), class: 'nowrap', cell: (row) => nextOf(row) },
    { head: t('col.changed'), class: 'right', cell: (row) => when(row.updated_at) },
    { head: t('col.tenant'), cell: (row) => raw(row.tenant, 'dim') },
    { head: h('span', { class: 'unseen' }, t('col.actions')), class: 'right', cell: (row) => h('div', { class: 'row row-end' }, circuitActions(row, refresh)) },
  ];
}

function nextOf(row) {
  if (row.state === 'closed') return h('span', { class: 'dim' }, t('circuits.passes'));
  if (row.state === 'half_open') return h('span', {}, t('circuits.probing'), ' ', row.prober ? raw(row.prober, 'dim') : null);
  if (row.open_for_ms === null || row.open_for_ms === undefined) return h('span', {}, row.forced ? t('circuits.by_hand') : t('circuits.asks'));
  return h('span', {}, t('circuits.probe_in', { span: span(row.open_for_ms) }));
}

/** Calls, failed and slow ones, of what was counted when it last opened. */
function windowOf({ window: given, evidence }) {
  const held = given ?? evidence ?? {};
  const calls = held.calls ?? held.requests;
  if (!calls) return h('span', { class: 'dim' }, t('circuits.no_window'));
  const failures = held.failures ?? held.failed ?? 0;
  const slow = held.slow ?? 0;
  const part = (n) => (n / calls) * 100;
  return h(
    'div',
    { class: 'window' },
    s(
      'svg',
      { class: 'window-bar', viewBox: '0 0 100 8', preserveAspectRatio: 'none', role: 'img', 'aria-label': t('circuits.window_says', { calls: number(calls), failures: number(failures), slow: number(slow) }) },
      s('rect', { class: 'fill-ok', x: 0, width: 100, y: 0, height: 8 }),
      s('rect', { class: 'fill-warn', x: 0, width: Math.min(100, part(failures + slow)), y: 0, height: 8 }),
      s('rect', { class: 'fill-bad', x: 0, width: part(failures), y: 0, height: 8 }),
    ),
    h('p', { class: 'window-says' }, t('circuits.window', { calls: number(calls), failures: number(failures), share: percent(failures, calls), slow: number(slow) })),
  );
}
