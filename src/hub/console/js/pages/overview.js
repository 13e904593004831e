// What goes on, at a glance; and from each number the way to why.

import { get } from '../api.js';
import { fill, h, raw } from '../dom.js';
import { compact, number, percent, span } from '../format.js';
import { count, t } from '../i18n.js';
import { icon } from '../icons.js';
import { title } from '../listing.js';
import { keepFresh } from '../live.js';
import { classBadge, empty, failure, firstCall, link, loading, panel, select, status, table, toolName, toolOf, took, when } from '../parts.js';
import { legend, plot, sparkline } from '../plot.js';
import { remember, to } from '../router.js';

const WINDOWS = [60, 300, 900, 3600, 21_600, 86_400];
const SPARKS = 24;
/** How the queue stood while this console is open; the hub keeps no such history. */
const depths = [];
const DEPTHS_MAX = 180;
const DEPTHS_LEAST = 60;
const EVERY_MS = 5000;

export default {
  show(main, { query, signal }) {
    let windowS = WINDOWS.includes(Number(query.window_s)) ? Number(query.window_s) : 900;
    const trouble = h('div', {});
    const tiles = h('div', { class: 'tiles' }, loading());
    const plots = drawPlots();
    const rest = h('div', {});
    const picker = select(WINDOWS.map((s) => [String(s), t('overview.last', { span: span(s * 1000) })]), String(windowS), (value) => {
      windowS = Number(value);
      remember({ window_s: value });
      refresh();
    });
    picker.setAttribute('aria-label', t('overview.window'));
    picker.id = 'window';
    main.append(title(t('nav.overview'), t('overview.says'), picker), trouble, tiles, plots.element, rest);

    const refresh = keepFresh({
      signal,
      every: EVERY_MS,
      least: 1200,
      look: async (within) => {
        const [summary, dead, calls, circuits] = await Promise.all([
          get('/api/metrics/summary', { window_s: windowS }, within),
          get('/api/dead-letters', { limit: 6 }, within),
          get('/api/metrics/mcp/events', { type: 'mcp_call_scheduled', since: new Date(Date.now() - windowS * 1000).toISOString(), limit: 500 }, within),
          get('/api/circuits', {}, within),
        ]);
        remembered(summary);
        fill(tiles, drawTiles(summary));
        plots.update(summary);
        const broken = circuits.circuits.filter(({ state }) => state !== 'closed');
        fill(rest, broken.length ? brokenCircuits(broken) : [], h('div', { class: 'columns' }, toolsPanel(summary, calls.events, windowS), failuresPanel(dead.messages)), queuePanel(summary));
      },
      failed: (error) => fill(trouble, error ? failure(error, refresh) : []),
    });
  },
};

function remembered({ at, queue }) {
  depths.push({ at, waits: queue.queued + queue.delayed + queue.parked, claimed: queue.claimed });
  if (depths.length > DEPTHS_MAX) depths.shift();
}

/** A line that begins at the right, and does not stretch over the plot as long as it is short. */
function padded(points) {
  const missing = Math.max(0, DEPTHS_LEAST - points.length);
  const first = new Date(points[0]?.at ?? Date.now()).getTime();
  return [...Array.from({ length: missing }, (_, index) => ({ at: new Date(first - (missing - index) * EVERY_MS).toISOString() })), ...points];
}

function tile(name, value, says, { tone, href } = {}) {
  const body = [h('span', { class: 'tile-name' }, name), h('span', { class: ['tile-value', 'num'], translate: 'no' }, value), h('span', { class: 'tile-says' }, says)];
  const key = { 'data-key': name, class: ['tile', tone && `tile-${tone}`] };
  return href ? h('a', { ...key, href }, body) : h('div', key, body);
}

function drawTiles({ mcp, queue, workers, circuits, truncated }) {
  const ended = mcp.succeeded + mcp.dead_lettered;
  const waits = queue.queued + queue.delayed + queue.parked;
  const broken = circuits.open + circuits.half_open;
  return [
    tile(t('tile.calls'), compact(mcp.calls), truncated ? t('tile.at_least') : count('tile.in_flight', mcp.in_flight), { href: to('traces') }),
    tile(t('tile.success'), percent(mcp.succeeded, ended), count('tile.failed_attempts', mcp.fails), { tone: ended && mcp.dead_lettered / ended > 0.05 ? 'bad' : mcp.dead_lettered ? 'warn' : ended ? 'ok' : null, href: to('traces', [], { status: 'failed' }) }),
    tile(t('tile.p50'), span(mcp.p50_ms), [t('tile.p95'), ' ', raw(span(mcp.p95_ms), 'num')]),
    tile(t('tile.waiting'), compact(waits), [t('tile.oldest'), ' ', raw(span(waits ? queue.oldest_ms : null), 'num')], { tone: waits && queue.oldest_ms > 60_000 ? 'warn' : null, href: to('traces', [], { status: 'waiting' }) }),
    tile(t('tile.dead'), compact(queue.failed), queue.failed ? t('tile.dead_some') : t('tile.dead_none'), { tone: queue.failed ? 'bad' : 'ok', href: to('dead-letters') }),
    tile(t('tile.workers'), number(workers.online), count('tile.offline', workers.offline), { tone: workers.online ? 'ok' : 'bad', href: to('workers') }),
    tile(t('tile.circuits'), number(broken), broken ? t('tile.circuits_open') : t('tile.circuits_closed'), { tone: broken ? 'bad' : 'ok', href: to('circuits') }),
  ];
}

function drawPlots() {
  const outcomes = [
    { key: 'succeeded', name: t('plot.succeeded'), tone: 'ok' },
    { key: 'retried', name: t('plot.failed'), tone: 'warn' },
    { key: 'dead_lettered', name: t('plot.dead_lettered'), tone: 'bad' },
  ];
  const latency = [
    { key: 'p50_ms', name: t('plot.p50'), tone: 'info' },
    { key: 'p95_ms', name: t('plot.p95'), tone: 'warn' },
  ];
  const depth = [
    { key: 'waits', name: t('plot.waits'), tone: 'warn' },
    { key: 'claimed', name: t('plot.claimed'), tone: 'info' },
  ];
  const throughput = plot({ kind: 'bars', series: outcomes, show: compact, label: t('plot.throughput_label'), whole: true });
  const spans = plot({ kind: 'lines', series: latency, show: span, label: t('plot.latency_label') });
  const queue = plot({ kind: 'lines', series: depth, show: compact, label: t('plot.queue_label'), whole: true });
  const rate = h('span', {});
  return {
    element: h(
      'div',
      { class: 'plots' },
      panel(t('plot.throughput'), [throughput.element, legend(outcomes)], { note: rate }),
      panel(t('plot.latency'), [spans.element, legend(latency)], { note: t('plot.latency_note') }),
      panel(t('plot.queue'), [queue.element, legend(depth)], { note: t('plot.queue_note') }),
    ),
    update({ series }) {
      // A try after which there was no other is a dead letter, and counted as that.
      throughput.update(series.points.map((at) => ({ ...at, retried: Math.max(0, at.failed - at.dead_lettered) })));
      spans.update(series.points);
      queue.update(padded(depths));
      fill(rate, t('plot.each', { span: span(series.step_s * 1000) }));
    },
  };
}

function brokenCircuits(circuits) {
  return h(
    'div',
    { class: 'note note-bad' },
    icon('alert'),
    h('div', {}, h('p', {}, h('strong', {}, count('overview.circuits', circuits.length)), ' ', t('overview.circuits_says')), h('ul', { class: 'plain' }, circuits.slice(0, 5).map(({ key, state }) => h('li', {}, status(state), ' ', h('a', { href: to('circuits', [], { q: key }), translate: 'no' }, key))))),
  );
}

/** Calls of each tool, in `SPARKS` parts of the window. */
function sparks(events, windowS) {
  const begin = Date.now() - windowS * 1000;
  const all = new Map();
  for (const { created_at, service, payload } of events) {
    const name = `${payload?.payload?.toolset ?? service}/${payload?.payload?.tool}`;
    if (!all.has(name)) all.set(name, Array.from({ length: SPARKS }, () => ({ all: 0 })));
    const at = Math.floor(((new Date(created_at).getTime() - begin) / (windowS * 1000)) * SPARKS);
    const part = all.get(name)[Math.min(SPARKS - 1, Math.max(0, at))];
    part.all += 1;
  }
  return all;
}

function toolsPanel({ mcp }, events, windowS) {
  if (!mcp.tools.length) return panel(t('overview.tools'), empty(t('overview.no_calls'), t('overview.no_calls_says'), firstCall()), { className: 'grow' });
  const small = sparks(events, windowS);
  const rows = [...mcp.tools].sort((a, b) => b.dead_lettered - a.dead_lettered || b.fails - a.fails || b.calls - a.calls).slice(0, 20);
  const columns = [
    { head: t('col.tool'), class: 'own', cell: (row) => link(toolName(row.toolset, row.tool), to('traces', [], { toolset: row.toolset, tool: row.tool })) },
    { head: t('col.calls'), class: 'right num', cell: (row) => raw(compact(row.calls)) },
    { head: t('col.course'), class: 'spark-cell', cell: (row) => sparkline(small.get(`${row.toolset}/${row.tool}`) ?? [], t('overview.spark', { tool: `${row.toolset}/${row.tool}` })) },
    { head: t('col.dead'), class: 'right num', cell: (row) => raw(number(row.dead_lettered), row.dead_lettered ? 'bad' : 'dim') },
    { head: t('col.fails'), class: 'right num', cell: (row) => raw(number(row.fails), row.fails ? 'warn' : 'dim') },
    { head: 'p50', class: 'right', cell: (row) => took(row.p50_ms) },
    { head: 'p95', class: 'right', cell: (row) => took(row.p95_ms) },
    { head: t('col.last_error'), class: 'rest', cell: (row) => (row.last_error ? h('a', { class: 'cut', href: to('message', [row.last_error.message_id]) }, classBadge(row.last_error.class), raw(row.last_error.message, 'clip')) : raw('–', 'dim nil')) },
  ];
  return panel(t('overview.tools'), table(columns, rows, { key: (row) => `${row.toolset}/${row.tool}`, caption: t('overview.tools') }), { note: t('overview.tools_note'), className: 'grow' });
}

function failuresPanel(messages) {
  const body = messages.length
    ? h(
        'ul',
        { class: 'feed', 'data-walk': '' },
        messages.map((message) =>
          h(
            'li',
            { 'data-key': message.id },
            h('a', { class: 'feed-link', href: to('trace', [message.trace_id], { message: message.id }) }, h('span', { class: 'feed-top' }, toolOf(message), when(message.done_at ?? message.updated_at)), h('span', { class: 'feed-says' }, classBadge(message.class), ' ', raw(message.error?.message ?? message.reason, 'clip'))),
          ),
        ),
      )
    : empty(t('overview.no_failures'), t('overview.no_failures_says'));
  return panel(t('overview.failures'), body, { note: messages.length ? h('a', { href: to('dead-letters') }, t('overview.all_failures')) : null, className: 'side' });
}

function queuePanel({ queue }) {
  if (!queue.roles.length) return panel(t('overview.queue'), empty(t('overview.queue_empty'), t('overview.queue_empty_says')));
  const columns = [
    { head: t('col.topic'), class: 'own', cell: (row) => raw(`${row.role}/${row.service}`) },
    { head: t('col.tenant'), cell: (row) => raw(row.tenant, 'dim') },
    ...['queued', 'delayed', 'claimed', 'parked', 'failed'].map((word) => ({ head: t(`status.${word}`), class: 'right num', cell: (row) => raw(number(row[word]), row[word] ? (word === 'failed' ? 'bad' : '') : 'dim') })),
    { head: t('col.oldest'), class: 'right', cell: (row) => took(row.oldest_ms) },
  ];
  return panel(t('overview.queue'), table(columns, queue.roles, { key: (row) => `${row.tenant}/${row.role}/${row.service}`, caption: t('overview.queue') }));
}
