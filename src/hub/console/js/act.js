// What an operator does: each asks first, and says afterwards what became of it.

import { post } from './api.js';
import { ask } from './dialog.js';
import { code, h, raw } from './dom.js';
import { count, t } from './i18n.js';
import { announce, button, field, note } from './parts.js';
import { mayAct } from './session.js';
import { Failure } from './api.js';

function reasonField() {
  const input = h('input', { type: 'text', maxlength: '200', autocomplete: 'off' });
  return { input, element: field(t('ask.reason'), input, { hint: t('ask.reason_hint') }), value: () => input.value.trim() || undefined };
}

/** Says how it went: how many, and which not and why. */
function told(key, { results, more }) {
  const done = results.filter(({ outcome }) => outcome === 'requeued' || outcome === 'dropped').length;
  announce(count(`said.${key}`, done), done ? 'ok' : 'plain');
  const not = results.length - done;
  if (not) announce(count('said.refused', not), 'bad');
  if (more) announce(t('said.more'));
}

/** Reads JSON that a person wrote; says where it is wrong. */
export function readJson(text, name) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Failure({ code: 'invalid_argument', message: t('error.json', { name, why: error.message }) });
  }
}

/** Puts one message back, with other params if wanted. */
export function requeueOne(message, done) {
  const reason = reasonField();
  const params = message.payload?.params;
  const before = params === undefined ? null : JSON.stringify(params, null, 2);
  const text = before === null ? null : h('textarea', { class: 'code-input', rows: Math.min(12, before.split('\n').length + 1), spellcheck: 'false', translate: 'no', value: before });
  return ask({
    title: t('ask.requeue_title'),
    says: t('ask.requeue_says'),
    fields: [h('p', {}, code(message.id)), text ? field(t('ask.params'), text, { hint: t('ask.params_hint') }) : null, reason.element],
    yes: t('action.requeue'),
    act: () => {
      const changed = text && text.value.trim() !== before;
      return post('/api/dead-letters/requeue', { ids: [message.id], reason: reason.value(), params: changed ? readJson(text.value, 'params') : undefined });
    },
    done: (answer) => {
      told('requeued', answer);
      done?.();
    },
  });
}

/** `targets`: `{ ids }` or `{ filter, max }`. */
export function requeueMany(targets, says, done) {
  const reason = reasonField();
  return ask({
    title: t('ask.requeue_many_title'),
    says,
    fields: [reason.element],
    yes: t('action.requeue'),
    act: () => post('/api/dead-letters/requeue', { ...targets, reason: reason.value() }),
    done: (answer) => {
      told('requeued', answer);
      done?.();
    },
  });
}

export function dropMany(targets, says, done) {
  const reason = reasonField();
  return ask({
    title: t('ask.drop_title'),
    says,
    fields: [note('bad', 'alert', t('ask.drop_for_good')), reason.element],
    yes: t('action.drop'),
    tone: 'danger',
    act: () => post('/api/dead-letters/drop', { ...targets, confirm: true, reason: reason.value() }),
    done: (answer) => {
      told('dropped', answer);
      done?.();
    },
  });
}

export function cancelOne(id, done) {
  return ask({
    title: t('ask.cancel_title'),
    says: t('ask.cancel_says'),
    fields: [h('p', {}, code(id))],
    yes: t('action.cancel_message'),
    tone: 'danger',
    act: () => post(`/api/messages/${encodeURIComponent(id)}/cancel`, {}),
    done: () => {
      announce(t('said.cancelled'), 'ok');
      done?.();
    },
  });
}

/** Opens, closes or resets a breaker. */
export function setCircuit(action, { key, tenant }, done) {
  const reason = reasonField();
  const seconds = action === 'open' ? h('input', { type: 'number', min: '1', max: '999999', step: '1', inputmode: 'numeric' }) : null;
  return ask({
    title: t(`ask.circuit_${action}_title`),
    says: t(`ask.circuit_${action}_says`),
    fields: [h('p', {}, code(key), ' ', raw(tenant, 'dim')), seconds ? field(t('ask.open_s'), seconds, { hint: t('ask.open_s_hint') }) : null, reason.element],
    yes: t(`action.circuit_${action}`),
    tone: action === 'open' ? 'danger' : 'primary',
    act: () => post(`/api/circuits/${action}`, { key, tenant, reason: reason.value(), open_ms: seconds?.value ? Math.round(Number(seconds.value) * 1000) : undefined }),
    done: () => {
      announce(t(`said.circuit_${action}`), 'ok');
      done?.();
    },
  });
}

/** What may be done to a breaker as it stands. */
export function circuitActions(circuit, done) {
  if (!mayAct()) return [];
  const actions = circuit.state === 'closed' ? ['open', 'reset'] : ['close', 'open', 'reset'];
  return actions.map((action) => button(t(`action.circuit_${action}`), () => setCircuit(action, circuit, done), { small: true, tone: action === 'open' ? 'plain' : 'plain', data: { action } }));
}
