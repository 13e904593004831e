// What pages that list have in common: filters that stand in the address, more on demand, fresh by themselves.

import { fill, h } from './dom.js';
import { t } from './i18n.js';
import { keepFresh } from './live.js';
import { button, failure, loading } from './parts.js';
import { here, remember } from './router.js';

/**
 * A list that follows its filters. `load(query, after, signal)` gives `{ rows, next }`, `draw(rows, state)` what is
 * shown; `concerns` tells which events of the log make it look again.
 */
export function listing({ place, query, load, draw, signal, concerns, every }) {
  let asked = { ...query };
  let pages = 1;
  let state = { rows: null, next: null };
  let trouble = null;
  const body = h('div', {});
  const notes = h('div', {});
  place.append(notes, body);

  const redraw = () => {
    fill(notes, trouble ? failure(trouble, () => refresh()) : []);
    if (state.rows === null) fill(body, trouble ? [] : loading());
    else fill(body, draw(state.rows, state), state.next ? h('p', { class: 'more' }, button(t('action.more'), more)) : []);
  };
  const refresh = keepFresh({
    signal,
    concerns,
    every,
    look: async (within) => {
      const wanted = JSON.stringify(asked);
      const rows = [];
      let next = null;
      for (let page = 0; page < pages; page += 1) {
        const got = await load(asked, next, within);
        rows.push(...got.rows);
        next = got.next;
        if (!next) break;
      }
      // The filters have changed meanwhile: this answers another question.
      if (wanted === JSON.stringify(asked)) state = { rows, next };
    },
    failed: (error) => {
      trouble = error;
      redraw();
    },
  });
  const more = () => {
    pages += 1;
    refresh();
  };
  redraw();
  return {
    refresh,
    redraw,
    query: () => asked,
    rows: () => state.rows ?? [],
    set(change) {
      asked = Object.fromEntries(Object.entries({ ...asked, ...change }).filter(([, value]) => value !== '' && value !== null && value !== undefined));
      pages = 1;
      remember(asked);
      refresh();
    },
  };
}

/** A text to filter by; it takes effect as it is written. The first of a page is what `/` focuses. */
export function textFilter(name, label, list, { first, placeholder, list: suggestions } = {}) {
  let timer = null;
  const input = h('input', {
    type: 'search',
    value: here().query[name] ?? '',
    placeholder,
    translate: placeholder ? 'no' : null,
    autocomplete: 'off',
    spellcheck: 'false',
    'data-filter': first ? '' : null,
    list: suggestions,
    on: {
      input: () => {
        clearTimeout(timer);
        timer = setTimeout(() => list().set({ [name]: input.value.trim() }), 250);
      },
    },
  });
  return h('label', { class: 'filter' }, h('span', {}, label), input);
}

export function choiceFilter(name, label, list, options) {
  return h(
    'label',
    { class: 'filter' },
    h('span', {}, label),
    h('select', { value: here().query[name] ?? '', on: { change: (event) => list().set({ [name]: event.target.value }) } }, options.map(([value, text, isData]) => h('option', { value, translate: isData ? 'no' : null }, text))),
  );
}

export function filters(...parts) {
  return h('form', { class: 'filters', role: 'search', on: { submit: (event) => event.preventDefault() } }, parts);
}

/** A page's heading. */
export function title(text, says, actions) {
  return h('div', { class: 'title' }, h('div', {}, h('h1', {}, text), says ? h('p', { class: 'dim' }, says) : null), actions ? h('div', { class: 'row' }, actions) : null);
}
