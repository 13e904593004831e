// One trace: on a line of time, why it failed if it did, and every event with what it left behind.

import { cancelOne, dropMany, requeueOne } from '../act.js';
import { attemptFiles } from '../artifact.js';
import { get } from '../api.js';
import { code, fill, h, raw } from '../dom.js';
import { explain } from '../explain.js';
import { number, span } from '../format.js';
import { count, has, t } from '../i18n.js';
import { icon } from '../icons.js';
import { json } from '../json.js';
import { keepFresh } from '../live.js';
import { button, classBadge, clock, copyButton, failure, loading, note, panel, status, toolName, took } from '../parts.js';
import { result } from '../result.js';
import { to } from '../router.js';
import { mayAct } from '../session.js';
import { timeline } from '../timeline.js';
import { messagesOf, whatOf } from '../work.js';

const TONES = { succeeded: 'ok', failed: 'bad', lease_expired: 'bad', dead_lettered: 'bad', retry_scheduled: 'warn', released: 'warn', scheduled: 'info', requeued: 'info', cancelled: 'mute', dropped: 'mute' };
const SIGNS = { succeeded: 'check', failed: 'cross', lease_expired: 'cross', dead_lettered: 'dead', retry_scheduled: 'retry', released: 'pause', scheduled: 'plus', requeued: 'retry', cancelled: 'close', dropped: 'trash' };

export default {
  under: 'traces',
  show(main, { parts: [id = ''], query, signal }) {
    const trouble = h('div', {});
    const body = h('div', {}, loading());
    main.append(trouble, body);
    const refresh = keepFresh({
      signal,
      every: 10_000,
      least: 400,
      concerns: (event) => event.trace_id === id,
      look: async (within) => {
        const told = await get(`/api/traces/${encodeURIComponent(id)}`, {}, within);
        const works = messagesOf(told.events);
        const chosen = works.find((work) => work.id === query.message) ?? works.find((work) => work.status === 'failed') ?? works.find((work) => work.last && !work.last.ok) ?? works[0];
        const [circuits, row] = await Promise.all([
          get('/api/circuits', {}, within).then((answer) => answer.circuits, () => null),
          // A message that was purged or dropped has left its events alone.
          chosen ? get(`/api/messages/${encodeURIComponent(chosen.id)}`, {}, within).then((answer) => answer.message, () => null) : null,
        ]);
        fill(body, draw({ id, told, works, chosen, circuits, row, signal, refresh: () => refresh() }));
      },
      failed: (error) => {
        fill(trouble, error ? failure(error, refresh) : []);
        if (error && body.querySelector('.loading')) fill(body, h('p', {}, h('a', { href: to('traces') }, t('trace.back'))));
      },
    });
  },
};

function draw({ id, told, works, chosen, circuits, row, signal, refresh }) {
  const events = told.events;
  const began = new Date(events[0].created_at).getTime();
  const failed = chosen && (chosen.status === 'failed' || (chosen.last && !chosen.last.ok && chosen.status !== 'cancelled'));
  const actions = mayAct() && row ? actionsOf(row, refresh) : null;
  return [
    head(id, works, chosen, events, row),
    row && row.status !== chosen.status ? standing(row) : null,
    panel(t('trace.timeline'), timeline(works, goTo), { className: 'timeline-panel' }),
    failed ? explain(chosen, { circuits, signal, actions: row?.status === 'failed' ? actions : null }) : null,
    chosen?.status === 'done' && row?.result !== undefined && row?.result !== null ? panel(t('trace.result'), h('div', { 'data-keep': '', 'data-key': `result-${row.id}-${row.claim_no}` }, result(row.result, signal))) : null,
    !failed && actions?.length ? h('div', { class: 'row' }, actions) : null,
    chosen ? panel(t('trace.asked'), h('details', { class: 'fold', open: true }, h('summary', {}, t('trace.payload')), json(chosen.payload))) : null,
    panel(t('trace.events'), h('ol', { class: 'steps' }, events.map((event) => eventStep(event, began, works.length > 1, signal))), { note: told.truncated ? t('trace.truncated') : count('trace.event_count', events.length) }),
  ];
}

function head(id, works, chosen, events, row) {
  const all = works.map((work) => work.status);
  const state = all.includes('failed') ? 'failed' : all.includes('waiting') ? (row?.status ?? 'waiting') : all.every((word) => word === 'done') ? 'done' : (all[0] ?? 'unknown');
  const took = new Date(events[events.length - 1].created_at) - new Date(events[0].created_at);
  const fact = (name, value) => h('div', { class: 'fact' }, h('dt', {}, name), h('dd', {}, value));
  return h(
    'div',
    { class: 'title title-trace' },
    h('div', {}, h('p', { class: 'crumbs' }, h('a', { href: to('traces') }, t('nav.traces'))), h('h1', {}, chosen ? toolName(chosen.toolset, chosen.tool ?? chosen.intent) : t('nav.traces'), ' ', status(state))),
    h(
      'dl',
      { class: 'facts' },
      fact(t('col.trace'), [code(id), copyButton(() => id)]),
      chosen ? fact(t('col.message'), [code(chosen.id), copyButton(() => chosen.id)]) : null,
      fact(t('col.began'), clock(events[0].created_at)),
      fact(t('col.took'), raw(span(took), 'num')),
      fact(t('col.attempts'), raw(`${number(chosen?.attempts.length ?? 0)}${chosen?.maxAttempts ? ` / ${chosen.maxAttempts}` : ''}`, 'num')),
      fact(t('col.tenant'), raw(events[0].tenant)),
      chosen?.deadlineMs ? fact(t('trace.deadline'), raw(span(chosen.deadlineMs), 'num')) : null,
    ),
  );
}

/** Where the table knows more than the log: what waits, and for what. */
function standing(row) {
  const due = row.run_at && new Date(row.run_at) > Date.now() ? t('trace.due', { span: span(new Date(row.run_at) - Date.now()) }) : null;
  if (!['queued', 'delayed', 'parked', 'claimed'].includes(row.status)) return null;
  return note('info', 'clock', h('p', {}, status(row.status), ' ', t(`standing.${row.parked_for ? 'parked' : row.status}`), ' ', row.parked_for ? code(row.parked_for) : null, row.claimed_by && row.status === 'claimed' ? code(row.claimed_by) : null, ' ', due));
}

function actionsOf(row, refresh) {
  const waiting = ['queued', 'delayed', 'claimed', 'parked'].includes(row.status);
  if (waiting) return [button(t('action.cancel_message'), () => cancelOne(row.id, refresh), { sign: 'close' })];
  if (row.status !== 'failed') return [];
  return [
    button(t('action.requeue'), () => requeueOne(row, refresh), { tone: 'primary', sign: 'retry', id: 'requeue' }),
    button(t('action.drop'), () => dropMany({ ids: [row.id] }, t('ask.drop_one'), refresh), { tone: 'plain', sign: 'trash' }),
  ];
}

function goTo(event) {
  const place = document.getElementById(`event-${event}`);
  if (!place) return;
  place.querySelector('details')?.setAttribute('open', '');
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  place.scrollIntoView({ block: 'center', behavior: still ? 'auto' : 'smooth' });
  place.focus({ preventScroll: true });
}

function eventStep(event, began, several, signal) {
  const what = whatOf(event);
  const error = event.payload?.error;
  const folder = typeof event.payload?.artifacts === 'string' ? event.payload.artifacts : null;
  const name = has(`what.${what}`) ? t(`what.${what}`) : raw(event.event_type);
  return h(
    'li',
    { class: ['step', `step-${TONES[what] ?? 'mute'}`], id: `event-${event.id}`, 'data-key': event.id, tabindex: '-1' },
    h('span', { class: 'step-at num', translate: 'no', title: event.created_at }, `+${span(new Date(event.created_at) - began)}`),
    h('span', { class: 'step-sign' }, icon(SIGNS[what] ?? 'dot')),
    h(
      'div',
      { class: 'step-body' },
      h(
        'p',
        { class: 'step-top' },
        h('strong', {}, name),
        event.attempt && what !== 'requeued' ? h('span', { class: 'dim' }, t('trace.attempt', { n: event.attempt })) : null,
        classBadge(event.payload?.class),
        event.reason && event.reason !== event.payload?.class ? code(event.reason) : null,
        event.payload?.duration_ms !== undefined ? h('span', { class: 'dim' }, t('trace.took'), ' ', took(event.payload.duration_ms)) : null,
        what === 'retry_scheduled' ? h('span', { class: 'dim' }, t('trace.in', { span: span(event.payload?.delay_ms) })) : null,
        several && event.message_id ? code(event.message_id.slice(-8), 'dim') : null,
      ),
      error?.message ? h('p', { class: 'step-says', translate: 'no' }, error.message) : null,
      event.worker_id ? h('p', { class: 'step-by dim' }, t('trace.by'), ' ', h('a', { href: to('workers', [], { q: event.worker_id }), translate: 'no' }, event.worker_id)) : null,
      h(
        'details',
        { class: 'fold' },
        h('summary', {}, t('trace.details'), ' ', code(event.event_type)),
        json(event.payload),
      ),
      folder ? files(folder, signal) : null,
    ),
  );
}

/** Fetched only once somebody wants to see them. */
function files(folder, signal) {
  const details = h('details', { class: 'fold', 'data-keep': '' }, h('summary', {}, t('trace.artifacts')));
  details.addEventListener('toggle', () => {
    if (details.open && details.children.length === 1) details.append(attemptFiles(folder, signal));
  });
  return details;
}
