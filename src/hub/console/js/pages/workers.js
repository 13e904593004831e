// The machines: which are there, what they do, and which tools they bring.

import { get } from '../api.js';
import { h, raw } from '../dom.js';
import { number } from '../format.js';
import { count, t } from '../i18n.js';
import { choiceFilter, filters, listing, textFilter, title } from '../listing.js';
import { empty, status, when } from '../parts.js';
import { to } from '../router.js';

export default {
  show(main, { query, signal }) {
    let list = null;
    const at = () => list;
    main.append(
      title(t('nav.workers'), t('workers.says')),
      filters(
        textFilter('q', t('workers.find'), at, { first: true }),
        choiceFilter('state', t('col.status'), at, [['', t('filter.any')], ['online', t('status.online')], ['offline', t('status.offline')]]),
      ),
    );
    const place = h('div', {});
    main.append(place);
    list = listing({
      place,
      query,
      signal,
      every: 5000,
      concerns: (event) => event.event_type.startsWith('agent_'),
      load: async ({ state }, after, within) => {
        const { workers, next } = await get('/api/workers', { state, after, limit: 100 }, within);
        return { rows: workers, next };
      },
      draw: (rows) => {
        const wanted = (list?.query() ?? query).q?.toLowerCase();
        const fit = wanted ? rows.filter((row) => JSON.stringify([row.id, row.host, row.tenant, toolsetsOf(row)]).toLowerCase().includes(wanted)) : rows;
        if (!rows.length) return h('div', { class: 'panel' }, empty(t('workers.none'), t('workers.none_says'), joinCommand()));
        if (!fit.length) return h('div', { class: 'panel' }, empty(t('workers.none_fit'), t('workers.none_fit_says')));
        return h('ul', { class: 'cards', 'data-walk': '' }, fit.map(card));
      },
    });
  },
};

function joinCommand() {
  return `cogo token mint --tenant default --worker laptop-1 --topic 'mcp-gateway/*' --expires 90d > laptop-1.key
cogo worker mcp-gateway --url ${location.origin} --key-file laptop-1.key`;
}

/** `{ toolset: [tool, …] }`, whichever way the answer has it. */
function toolsetsOf({ toolsets, info }) {
  const given = toolsets ?? info?.toolsets ?? {};
  const entries = Array.isArray(given) ? given.map((of) => [of.name ?? of.toolset, of.tools]) : Object.entries(given);
  return entries.map(([name, of]) => {
    const tools = of?.tools ?? of ?? [];
    return [name, Array.isArray(tools) ? tools.map((tool) => tool?.name ?? tool) : Object.keys(tools)];
  });
}

function card(worker) {
  const toolsets = toolsetsOf(worker);
  const word = worker.status ?? worker.state;
  const tools = toolsets.reduce((sum, [, all]) => sum + all.length, 0);
  const fact = (name, value) => h('div', { class: 'fact' }, h('dt', {}, name), h('dd', {}, value));
  return h(
    'li',
    { class: ['panel', 'card', `card-${word}`], 'data-key': `${worker.tenant}/${worker.id}` },
    h('div', { class: 'card-head' }, h('h2', { class: 'mono', translate: 'no' }, worker.id), status(word)),
    h(
      'dl',
      { class: 'facts' },
      fact(t('col.host'), raw(worker.host ?? '–')),
      fact(t('col.version'), raw(worker.version ?? '–', 'num')),
      fact(t('col.in_flight'), raw(worker.capacity === undefined || worker.capacity === null ? number(worker.in_flight) : `${number(worker.in_flight)} / ${number(worker.capacity)}`, 'num')),
      fact(t('col.seen'), when(worker.last_seen ?? worker.last_seen_at)),
      fact(t('col.since'), when(worker.started_at)),
      fact(t('col.tenant'), raw(worker.tenant)),
    ),
    h('p', { class: 'card-topics' }, h('span', { class: 'dim' }, t('workers.topics'), ' '), (worker.topics ?? []).map((topic) => [h('code', { translate: 'no' }, topic), ' '])),
    toolsets.length
      ? h(
          'details',
          { class: 'fold' },
          h('summary', {}, count('workers.tools', tools)),
          h('ul', { class: 'toolsets' }, toolsets.map(([name, all]) => h('li', {}, raw(name, 'toolset-name'), all.length ? null : h('span', { class: 'dim' }, ' ', t('workers.none_yet')), h('ul', { class: 'tags' }, all.map((tool) => h('li', {}, h('a', { class: 'tag', translate: 'no', href: to('tools', [name, tool]) }, tool))))))),
        )
      : h('p', { class: 'dim' }, t('workers.no_tools')),
  );
}
