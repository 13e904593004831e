// One trace on a line of time: what waited, what was tried, and how each ended.

import { h, raw } from './dom.js';
import { span } from './format.js';
import { t } from './i18n.js';
import { toolName } from './parts.js';
import { ceiling } from './plot.js';

/** Round steps for the marks of the axis. */
function marks(total) {
  const step = ceiling(total / 4) || 1;
  const all = [];
  for (let at = 0; at <= total + 1e-6; at += step) all.push(at);
  return all;
}

/** `works` as `work.js` reads them. `pick(id)` goes to an event's place in the list. */
export function timeline(works, pick) {
  const begin = Math.min(...works.map(({ start }) => start));
  const waiting = works.some((work) => work.waiting);
  const end = Math.max(...works.map((work) => work.end), waiting ? Date.now() : 0, begin + 1);
  const total = end - begin;
  const place = (at) => `${((at - begin) / total) * 100}%`;
  const width = (from, to) => `${((to - from) / total) * 100}%`;
  const wait = ({ from, to, why }) =>
    h('div', { class: ['bar', 'bar-wait', `bar-wait-${why}`], vars: { '--from': place(from), '--width': width(from, to) }, title: `${t(`wait.${why}`)}: ${span(to - from)}` });

  const rows = works.map((work) =>
    h(
      'div',
      { class: 'lane', 'data-key': work.id },
      h('div', { class: 'lane-name' }, toolName(work.toolset, work.tool ?? work.intent)),
      h(
        'div',
        { class: 'lane-track' },
        work.waits.map(wait),
        work.waiting ? wait({ from: work.waiting.from, to: end, why: work.waiting.why }) : null,
        work.attempts.map((attempt) =>
          h(
            'button',
            {
              type: 'button',
              class: ['bar', 'bar-try', attempt.ok ? 'bar-ok' : 'bad-bar'],
              vars: { '--from': place(attempt.from), '--width': width(attempt.from, attempt.to) },
              'aria-label': `${t('trace.attempt', { n: attempt.n })}, ${attempt.ok ? t('status.succeeded') : attempt.class}, ${span(attempt.ms)}`,
              title: `${t('trace.attempt', { n: attempt.n })} · ${attempt.ok ? t('status.succeeded') : attempt.class} · ${span(attempt.ms)}`,
              on: { click: () => pick(attempt.event.id) },
            },
            raw(attempt.n, 'num'),
          ),
        ),
        work.death ? h('div', { class: 'death', vars: { '--from': place(new Date(work.death.created_at).getTime()) }, title: `${t('what.dead_lettered')}: ${work.death.reason ?? ''}` }) : null,
      ),
    ),
  );
  const axis = h('div', { class: 'lane lane-axis', 'aria-hidden': 'true' }, h('div', { class: 'lane-name' }), h('div', { class: 'lane-track' }, marks(total).map((at) => h('span', { class: 'mark num', vars: { '--from': `${(at / total) * 100}%` }, translate: 'no' }, `+${span(at)}`))));
  const whys = [...new Set(works.flatMap((work) => [...work.waits.map(({ why }) => why), ...(work.waiting ? [work.waiting.why] : [])]))];
  return h(
    'div',
    { class: 'timeline' },
    rows,
    axis,
    h(
      'ul',
      { class: 'legend' },
      whys.map((why) => h('li', {}, h('i', { class: ['swatch', `bar-wait-${why}`] }), t(`wait.${why}`))),
      works.some((work) => work.attempts.some(({ ok }) => ok)) ? h('li', {}, h('i', { class: 'swatch tone-ok' }), t('trace.succeeded')) : null,
      works.some((work) => work.attempts.some(({ ok }) => !ok)) ? h('li', {}, h('i', { class: 'swatch tone-bad' }), t('trace.failed')) : null,
      works.some((work) => work.death) ? h('li', {}, h('i', { class: 'swatch swatch-death' }), t('what.dead_lettered')) : null,
    ),
  );
}
