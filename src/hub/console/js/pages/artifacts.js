// What runs left behind, in the order of their names, opened in place.

import { contents } from '../artifact.js';
import { get } from '../api.js';
import { show } from '../dialog.js';
import { code, fill, h, raw } from '../dom.js';
import { bytes, number } from '../format.js';
import { t } from '../i18n.js';
import { filters, listing, textFilter, title } from '../listing.js';
import { keepFresh } from '../live.js';
import { copyButton, empty, firstCall, link, table, when } from '../parts.js';
import { to } from '../router.js';

const NAMES = ['prefix', 'tenant'];

export default {
  show(main, { query, signal }) {
    let list = null;
    const at = () => list;
    const sums = h('div', { class: 'tiles tiles-small' });
    main.append(title(t('nav.artifacts'), t('artifacts.says')), sums, filters(textFilter('prefix', t('artifacts.prefix'), at, { first: true, placeholder: 'mcp/demo/' }), textFilter('tenant', t('col.tenant'), at)));
    const place = h('div', { class: 'panel flush' });
    main.append(place);
    keepFresh({ signal, every: 30_000, least: 10_000, look: async (within) => fill(sums, drawSums(await get('/api/metrics/mcp/artifacts/summary', {}, within))), failed: () => {} });
    list = listing({
      place,
      query: Object.fromEntries(Object.entries(query).filter(([name]) => NAMES.includes(name))),
      signal,
      every: 20_000,
      concerns: (event) => /_(succeeded|failed)$/.test(event.event_type),
      load: async (asked, after, within) => {
        const { artifacts, next } = await get('/api/artifacts', { ...asked, after, limit: 100 }, within);
        return { rows: artifacts, next };
      },
      draw: (rows) => {
        if (rows.length) return table(columns(), rows, { key: (row) => row.name, caption: t('nav.artifacts') });
        const asked = list?.query() ?? query;
        return asked.prefix || asked.tenant ? empty(t('artifacts.none_fit'), t('artifacts.none_fit_says')) : empty(t('artifacts.none'), t('artifacts.none_says'), firstCall());
      },
    });
  },
};

function drawSums({ files, bytes: size, oldest, truncated }) {
  const tile = (name, value, says) => h('div', { class: 'tile' }, h('span', { class: 'tile-name' }, name), h('span', { class: 'tile-value num', translate: 'no' }, value), h('span', { class: 'tile-says' }, says));
  return [tile(t('artifacts.files'), number(files), truncated ? t('tile.at_least') : ''), tile(t('artifacts.size'), bytes(size), ''), tile(t('artifacts.oldest'), oldest ? when(oldest) : '–', '')];
}

/** The message that left it, if its folder says. */
function messageOf(name) {
  return /-([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\//.exec(name)?.[1];
}

function open(row) {
  const ended = new AbortController();
  show(t('artifacts.dialog'), [h('p', { class: 'row' }, code(row.name, 'break'), copyButton(() => row.name)), contents(row.href, ended.signal)], { wide: true, onClose: () => ended.abort() });
}

function columns() {
  return [
    { head: t('artifacts.name'), class: 'wide', cell: (row) => h('button', { type: 'button', class: 'link mono break', translate: 'no', on: { click: () => open(row) } }, row.name) },
    { head: t('artifacts.type'), cell: (row) => raw(row.mime ?? '–', 'dim') },
    { head: t('artifacts.size'), class: 'right', cell: (row) => raw(bytes(row.bytes), 'num nowrap') },
    { head: t('col.changed'), class: 'right', cell: (row) => when(row.modified_at) },
    { head: t('col.trace'), cell: (row) => (messageOf(row.name) ? link(t('artifacts.to_trace'), to('message', [messageOf(row.name)])) : raw(row.tenant ?? '', 'dim')) },
  ];
}
