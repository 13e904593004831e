// Signing in with the admin token. It stays in this tab, and goes to this hub alone.

import { show } from './dialog.js';
import { code, fill, h } from './dom.js';
import { rich, t } from './i18n.js';
import { announce, button, failure, field, note, snippet } from './parts.js';
import { signIn } from './session.js';

function form(done) {
  const input = h('input', { type: 'password', name: 'token', autocomplete: 'off', spellcheck: 'false', required: true, id: 'token' });
  const trouble = h('div', {});
  const submit = button(t('session.sign_in'), null, { tone: 'primary', type: 'submit', sign: 'lock' });
  return h(
    'form',
    {
      class: 'sign-in',
      on: {
        submit: async (event) => {
          event.preventDefault();
          submit.disabled = true;
          fill(trouble);
          try {
            if (await signIn(input.value.trim())) {
              announce(t('session.welcome'), 'ok');
              done?.();
            } else {
              fill(trouble, note('bad', 'alert', h('p', {}, h('strong', {}, t('session.wrong'))), h('p', {}, t('session.wrong_says'))));
              input.setAttribute('aria-invalid', 'true');
              input.select();
            }
          } catch (error) {
            fill(trouble, failure(error));
          } finally {
            submit.disabled = false;
          }
        },
      },
    },
    h('p', {}, t('session.says')),
    field(t('session.token'), input),
    trouble,
    h('p', { class: 'hint' }, rich('session.where', { variable: code('COGO_ADMIN_TOKEN') })),
    snippet('cat ~/.local/share/cogo/admin-token'),
    h('div', { class: 'dialog-actions' }, submit),
  );
}

/** Asks over the page. */
export function askToken() {
  const place = h('div', {});
  const close = show(t('session.sign_in'), place);
  place.append(form(close));
  document.getElementById('token').focus();
}

/** Asks in the page's place: nothing is to be seen without the token. */
export function signInPage() {
  return h('div', { class: 'panel sign-in-page' }, h('h1', {}, t('session.sign_in')), note('plain', 'lock', t('session.closed_reads')), form());
}
