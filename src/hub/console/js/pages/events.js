// The log as it is written. Pausing lets go of the stream; going on takes it up at the very event.

import { get } from '../api.js';
import { short } from '../format.js';
import { code, fill, h, raw } from '../dom.js';
import { count, t } from '../i18n.js';
import { json } from '../json.js';
import { title } from '../listing.js';
import { button, classBadge, clock, empty, failure, firstCall, loading, note, toolName } from '../parts.js';
import { icon } from '../icons.js';
import { remember, to } from '../router.js';
import { follow } from '../stream.js';

const NAMES = ['type', 'toolset', 'tool', 'trace_id', 'tenant'];
const TYPES = ['mcp_call_scheduled', 'mcp_call_succeeded', 'mcp_call_failed', 'mcp_call_retry_scheduled', 'mcp_call_dead_lettered', 'mcp_call_requeued', 'circuit_opened', 'circuit_half_opened', 'circuit_closed', 'agent_online', 'agent_offline', 'admin_action'];
const BEFORE = 50;
/** What a person still scrolls through; the log has the rest. */
const KEPT = 500;

export default {
  show(main, { query, signal }) {
    let asked = Object.fromEntries(NAMES.filter((name) => query[name]).map((name) => [name, query[name]]));
    let running = null;
    let paused = false;
    let state = 'connecting';
    let trouble = null;
    let begun = false;
    const place = {};
    /** The tool of each message, which only its beginning names. */
    const tools = new Map();
    const rows = [];
    const seen = new Set();
    const notes = h('div', {});
    const body = h('div', {}, loading());
    const bar = h('div', { class: 'row stream-bar' });

    const filter = (name, label, props = {}) => {
      let timer = null;
      const input = h('input', { type: 'search', value: asked[name] ?? '', autocomplete: 'off', spellcheck: 'false', ...props });
      input.addEventListener('input', () => {
        clearTimeout(timer);
        timer = setTimeout(() => {
          const value = input.value.trim();
          asked = { ...asked, [name]: value };
          if (!value) delete asked[name];
          remember(asked);
          begin();
        }, 350);
      });
      return h('label', { class: 'filter' }, h('span', {}, label), input);
    };
    main.append(
      title(t('nav.events'), t('events.says')),
      h('form', { class: 'filters', role: 'search', on: { submit: (event) => event.preventDefault() } }, filter('type', t('col.type'), { 'data-filter': '', list: 'types' }), filter('toolset', t('col.toolset')), filter('tool', t('col.tool')), filter('trace_id', t('col.trace')), filter('tenant', t('col.tenant'))),
      h('datalist', { id: 'types' }, TYPES.map((type) => h('option', { value: type }))),
      bar,
      notes,
      h('div', { class: 'panel flush' }, body),
    );

    const drawBar = () => {
      const word = paused ? 'paused' : state;
      fill(
        bar,
        button(t(paused ? 'events.resume' : 'events.pause'), toggle, { sign: paused ? 'play' : 'pause', tone: paused ? 'primary' : 'plain', id: 'pause', 'aria-keyshortcuts': 'p' }),
        h('span', { class: 'live', role: 'status' }, h('span', { class: ['live-dot', `live-${word}`], 'aria-hidden': 'true' }), h('span', { data: { stream: word } }, t(`events.${word}`))),
        h('span', { class: 'dim' }, count('events.count', rows.length)),
      );
    };
    let due = false;
    const draw = () => {
      if (due) return;
      due = true;
      requestAnimationFrame(() => {
        due = false;
        if (signal.aborted) return;
        drawBar();
        fill(notes, trouble ? failure(trouble, begin) : []);
        if (!begun) return;
        fill(body, rows.length ? h('ol', { class: 'log', 'data-walk': '' }, rows.map((row) => (row.gap ? gap(row) : line(row, tools)))) : empty(t('events.none'), t('events.none_says'), firstCall()));
      });
    };
    const take = (event) => {
      // The list and the stream meet: what both have is shown once.
      if (seen.has(event.id)) return;
      seen.add(event.id);
      if (event.payload?.payload?.tool) tools.set(event.message_id, event.payload.payload.tool);
      rows.unshift(event);
      while (rows.length > KEPT) {
        const gone = rows.pop();
        seen.delete(gone.id);
        if (gone.payload?.payload) tools.delete(gone.message_id);
      }
      draw();
    };
    const listen = () => {
      running = new AbortController();
      state = 'connecting';
      draw();
      follow({
        query: asked,
        place,
        signal: running.signal,
        on: {
          event: take,
          gap: (told) => {
            rows.unshift({ gap: true, id: `gap-${told.from}`, ...told });
            draw();
          },
          state: (next, why) => {
            state = next;
            trouble = next === 'refused' ? why : null;
            draw();
          },
        },
      });
    };
    const toggle = () => {
      paused = !paused;
      if (paused) running?.abort();
      else listen();
      drawBar();
    };
    const begin = async () => {
      running?.abort();
      const own = (running = new AbortController());
      begun = false;
      rows.length = 0;
      seen.clear();
      trouble = null;
      try {
        // The log's end first, and then what lies before it: an event in between is in the list, or comes by the stream.
        const end = await get('/api/events', { order: 'desc', limit: 1 }, own.signal);
        place.after = end.events[0]?.cursor ?? null;
        const before = Object.keys(asked).length || end.events.length ? await get('/api/events', { ...asked, order: 'desc', limit: BEFORE }, own.signal) : { events: [] };
        for (const event of before.events.reverse()) take(event);
        begun = true;
        if (!paused) listen();
      } catch (error) {
        if (error.name === 'AbortError') return;
        trouble = error;
        setTimeout(() => !signal.aborted && running === own && error.isLost && begin(), 2000);
      }
      draw();
    };
    signal.addEventListener('abort', () => running?.abort());
    drawBar();
    begin();
  },
};

const TONE = [[/(succeeded|closed|online)$/, 'ok'], [/(dead_lettered|failed|opened|lease_expired|offline)$/, 'bad'], [/(retry_scheduled|released|half_opened|cancelled|dropped)$/, 'warn'], [/(scheduled|requeued)$/, 'info']];

function tone(type) {
  return TONE.find(([fits]) => fits.test(type))?.[1] ?? 'mute';
}

function gap({ id, from, to: until }) {
  return h('li', { 'data-key': id }, note('warn', 'alert', t('events.gap'), ' ', code(`${from} – ${until}`)));
}

function progressOf(payload) {
  const told = payload?.progress;
  if (told === undefined || told === null) return '';
  const { progress, total, message } = told;
  return [progress, total && `/ ${total}`, message].filter((part) => part !== undefined && part !== null).join(' ');
}

function line(event, tools) {
  const { payload } = event;
  const says = payload?.error?.message ?? (event.reason === payload?.class ? null : event.reason) ?? progressOf(payload);
  const tool = payload?.payload?.tool ?? tools.get(event.message_id);
  const name = tool ? toolName(payload?.payload?.toolset ?? event.service, tool) : raw(event.service, 'tool-name');
  const details = h('details', { class: 'fold' }, h('summary', {}, h('span', { class: 'unseen' }, t('trace.details'))));
  // Made only when it is opened: five hundred trees are many.
  details.addEventListener('toggle', () => details.open && details.children.length === 1 && details.append(json(event)));
  details.dataset.keep = '';
  return h(
    'li',
    { class: ['log-line', `log-${tone(event.event_type)}`], 'data-key': event.id, data: { event: event.id, cursor: event.cursor } },
    clock(event.created_at),
    h('span', { class: 'log-type', translate: 'no' }, icon({ ok: 'check', bad: 'cross', warn: 'retry', info: 'plus', mute: 'dot' }[tone(event.event_type)]), event.event_type),
    h('span', { class: 'log-what' }, event.message_id ? [h('a', { href: to('trace', [event.trace_id], { message: event.message_id }) }, name), ' ', raw(short(event.message_id), 'dim mono'), ' '] : [raw(event.worker_id ?? event.role, 'dim'), ' '], payload?.class ? [classBadge(payload.class), ' '] : null, raw(says, 'clip dim')),
    details,
  );
}
