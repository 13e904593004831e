// Why a call failed, for someone who has never seen the bus: what happened, what that class of failure means, what the
// retry policy made of it, where the breaker stands, what it left behind, and what can be done.

import { attemptFiles } from './artifact.js';
import { code, h, raw } from './dom.js';
import { span } from './format.js';
import { count, has, rich, t } from './i18n.js';
import { classBadge, status, took } from './parts.js';
import { icon } from './icons.js';
import { to } from './router.js';
import { breakerOf, policyKey } from './work.js';
import { circuitActions } from './act.js';

function step(sign, tone, title, ...body) {
  return h('li', { class: ['why-step', `why-${tone}`] }, h('span', { class: 'why-sign' }, icon(sign)), h('div', { class: 'why-text' }, h('h3', {}, title), body));
}

/** The explanation of a message that failed, or whose last attempt did. `circuits` may be `null`: not known. */
export function explain(work, { circuits, signal, actions }) {
  const attempt = work.last && !work.last.ok ? work.last : null;
  const kind = attempt?.class ?? work.death?.payload?.class ?? work.death?.reason;
  return h(
    'section',
    { class: 'panel why', 'aria-labelledby': 'why-title' },
    h('div', { class: 'panel-head' }, h('h2', { id: 'why-title' }, t(work.status === 'failed' ? 'why.title' : 'why.title_waiting'))),
    h(
      'ol',
      { class: 'why-list' },
      step('cross', 'bad', t('why.happened'), happened(work, attempt)),
      kind ? step('help', 'info', t('why.class'), meaning(kind)) : null,
      step('retry', 'warn', t('why.policy'), policy(work, kind)),
      step('circuits', 'info', t('why.circuit'), breaker(work, circuits)),
      attempt?.folder ? step('artifacts', 'info', t('why.left'), h('p', {}, t('why.left_says')), h('div', { 'data-keep': '', 'data-key': attempt.folder }, attemptFiles(attempt.folder, signal, 'error.json'))) : null,
      step('check', 'ok', t('why.do'), h('p', { class: 'why-advice' }, has(`class.${kind}.do`) ? t(`class.${kind}.do`) : t('class.unknown.do')), actions ? h('div', { class: 'row' }, actions) : h('p', { class: 'dim' }, t('why.sign_in'))),
    ),
  );
}

function happened(work, attempt) {
  if (!attempt) return h('p', {}, t('why.untried'));
  const said = attempt.message ?? attempt.class;
  return [
    h('p', {}, rich('why.attempt', { n: raw(attempt.n, 'num'), max: raw(work.maxAttempts ?? '?', 'num'), worker: code(attempt.worker ?? '–'), took: took(attempt.ms) })),
    h('blockquote', { class: 'said', translate: 'no' }, said),
    attempt.event.payload?.error?.may_have_run ? h('p', { class: 'dim' }, t('why.may_have_run')) : null,
  ];
}

function meaning(kind) {
  return h('p', {}, classBadge(kind), ' ', has(`class.${kind}.means`) ? t(`class.${kind}.means`) : t('class.unknown.means'));
}

/** What the retry policy did: each pause, and why there was no further attempt. */
function policy(work, kind) {
  const pauses = work.attempts.filter(({ retry }) => retry).map(({ retry }) => retry.payload?.delay_ms);
  const key = code(policyKey(work));
  const told = pauses.length ? h('p', {}, count('why.retried', pauses.length), ' ', pauses.map((ms, index) => [index ? ', ' : null, raw(span(ms), 'num')]), '.') : h('p', {}, t('why.not_retried'));
  const reason = work.death?.reason;
  const end = reason
    ? h('p', {}, code(reason), ' ', has(`reason.${reason}`) ? rich(`reason.${reason}`, { class: code(kind ?? '?'), n: raw(work.death.payload?.attempts ?? work.attempts.length), max: raw(work.maxAttempts ?? '?') }) : null)
    : h('p', {}, t(work.status === 'waiting' ? 'why.goes_on' : 'why.over'));
  return [told, end, h('p', { class: 'dim' }, rich('why.key', { key, file: code('configs/retry_policy.json'), command: code(`cogo config check --key ${policyKey(work)}`) }))];
}

function breaker(work, circuits) {
  if (circuits === null) return h('p', { class: 'dim' }, t('why.circuit_unknown'));
  const circuit = breakerOf(work, circuits);
  if (!circuit) return h('p', {}, t('why.no_circuit'));
  return [
    h('p', {}, status(circuit.state), ' ', h('a', { href: to('circuits', [], { q: circuit.key }), translate: 'no' }, circuit.key)),
    circuit.reason ? h('p', { class: 'dim' }, has(`circuit.${circuit.reason}`) ? t(`circuit.${circuit.reason}`) : raw(circuit.reason)) : null,
    circuit.state === 'closed' ? h('p', {}, t('why.circuit_closed')) : [h('p', {}, t('why.circuit_stops')), h('div', { class: 'row' }, circuitActions(circuit))],
  ];
}
