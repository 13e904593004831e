// Questions before something is done. The browser's own dialog: it traps the focus, and gives it back.

import { h } from './dom.js';
import { t } from './i18n.js';
import { button, failure } from './parts.js';
import { icon } from './icons.js';

/** Shows something over the page. Gives the function that closes it. */
export function show(title, children, { wide, onClose, className } = {}) {
  const close = () => dialog.close();
  const dialog = h(
    'dialog',
    { class: ['dialog', wide && 'dialog-wide', className], 'aria-labelledby': 'dialog-title' },
    h('div', { class: 'dialog-head' }, h('h2', { id: 'dialog-title' }, title), h('button', { type: 'button', class: 'button button-plain button-icon', 'aria-label': t('action.close'), on: { click: close } }, icon('close'))),
    h('div', { class: 'dialog-body' }, children),
  );
  dialog.addEventListener('close', () => {
    dialog.remove();
    onClose?.();
  });
  // A click beside it, and not one that ends there.
  dialog.addEventListener('pointerdown', (event) => event.target === dialog && close());
  document.body.append(dialog);
  dialog.showModal();
  return close;
}

/**
 * Asks before `act()` is run. What the hub refuses is shown, and the question stays. `fields` are controls to be
 * filled in; `act` reads them itself.
 */
export function ask({ title, says, fields = [], yes, tone = 'primary', act, done }) {
  return new Promise((resolve) => {
    let outcome = null;
    const trouble = h('div', {});
    const confirm = button(yes, null, { tone, type: 'submit' });
    const form = h(
      'form',
      {
        method: 'dialog',
        on: {
          submit: async (event) => {
            event.preventDefault();
            confirm.disabled = true;
            trouble.replaceChildren();
            try {
              outcome = await act();
              close();
              done?.(outcome);
            } catch (error) {
              trouble.replaceChildren(failure(error));
            } finally {
              confirm.disabled = false;
            }
          },
        },
      },
      says ? h('p', {}, says) : null,
      fields,
      trouble,
      h('div', { class: 'dialog-actions' }, button(t('action.cancel'), () => close()), confirm),
    );
    const close = show(title, form, { onClose: () => resolve(outcome) });
    (form.querySelector('textarea, input:not([type=hidden])') ?? confirm).focus();
  });
}
