// The words of the page, by key. Everything that is seen comes from here, or is data and says so (`translate="no"`).

import en from '/console/i18n/en.js';
import ko from '/console/i18n/ko.js';
import { kept, keep } from './store.js';

const CATALOGUES = { en, ko };
/** The languages, each by its own name. */
export const LANGUAGES = { en: 'English', ko: '한국어' };

let language = pick();

function pick() {
  const wanted = [kept('cogo.language'), ...(navigator.languages ?? [navigator.language])];
  return wanted.map((tag) => String(tag ?? '').slice(0, 2).toLowerCase()).find((tag) => tag in CATALOGUES) ?? 'en';
}

export function current() {
  return language;
}

/** Changes the language from now on. */
export function speak(to) {
  language = to;
  keep('cogo.language', to);
}

/** Whether there are words for a key. */
export function has(key) {
  return key in CATALOGUES[language];
}

/** The words of a key; `{name}` in them is `values.name`. */
export function t(key, values = {}) {
  const words = CATALOGUES[language][key] ?? CATALOGUES.en[key] ?? key;
  return words.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** As {@link t}, for a count: `<key>.one` or `<key>.other` as the language has it. */
export function count(key, n, values = {}) {
  const form = new Intl.PluralRules(language).select(n) === 'one' ? 'one' : 'other';
  return t(`${key}.${form}`, { n: new Intl.NumberFormat(language).format(n), ...values });
}

/** The words of a key with elements among them: `{name}` is replaced by the node `parts.name`. */
export function rich(key, parts) {
  return t(key)
    .split(/(\{\w+\})/)
    .filter(Boolean)
    .map((piece) => (/^\{\w+\}$/.test(piece) ? (parts[piece.slice(1, -1)] ?? piece) : piece));
}
