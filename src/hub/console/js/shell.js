// What stands around every page: the way about, who is signed in, whether the hub is there.

import { watchConnection } from './api.js';
import { fill, h, raw } from './dom.js';
import { LANGUAGES, current, speak, t } from './i18n.js';
import { icon } from './icons.js';
import { help } from './keys.js';
import { liveState, watchLive } from './live.js';
import { button } from './parts.js';
import { to } from './router.js';
import { hasToken, isSwitchedOff, session, signOut, switchReadOnly } from './session.js';
import { askToken } from './signin.js';
import { keep } from './store.js';

export const NAV = [
  ['overview', 'overview'],
  ['traces', 'traces'],
  ['dead-letters', 'dead'],
  ['workers', 'workers'],
  ['circuits', 'circuits'],
  ['tools', 'tools'],
  ['events', 'events'],
  ['artifacts', 'artifacts'],
];

let reachable = true;
let redrawLive = () => {};
watchLive(() => redrawLive());
watchConnection((now) => {
  if (now !== reachable) {
    reachable = now;
    redrawLive();
  }
});

export function shell({ again }) {
  const nav = h('ul', { class: 'nav-list', 'data-roving': '' });
  const live = h('div', { class: 'live', role: 'status' });
  const banner = h('div', { class: 'banners' });
  const tools = h('div', { class: 'top-tools' });
  const main = h('main', { id: 'main', class: 'main', tabindex: '-1' });
  let chosen = 'overview';

  const drawNav = () =>
    fill(
      nav,
      NAV.map(([page, sign]) => h('li', {}, h('a', { href: to(page), class: 'nav-link', 'aria-current': page === chosen ? 'page' : null }, icon(sign), h('span', {}, t(`nav.${page}`))))),
    );
  const drawLive = () => {
    const state = reachable ? liveState() : 'lost';
    const word = { live: 'live', connecting: 'connecting', lost: 'lost', refused: 'polling', off: 'off' }[state];
    fill(live, h('span', { class: ['live-dot', `live-${word}`], 'aria-hidden': 'true' }), h('span', {}, t(`live.${word}`)));
    fill(banner, reachable ? [] : h('div', { class: 'banner', role: 'alert' }, icon('alert'), h('span', {}, t('live.lost_says'))));
  };
  const drawTools = () => fill(tools, [readOnly(), language(again), theme(() => drawTools()), helpButton(), signing()]);

  redrawLive = drawLive;
  drawNav();
  drawLive();
  drawTools();
  const element = h(
    'div',
    { class: 'frame' },
    h('a', { class: 'skip', href: '#main', on: { click: (event) => (event.preventDefault(), main.focus()) } }, t('nav.skip')),
    h(
      'header',
      { class: 'top' },
      h('a', { class: 'brand', href: to('overview'), 'aria-label': 'COGO' }, h('img', { src: '/console/favicon.svg', alt: '', width: '22', height: '22' }), raw('COGO')),
      live,
      tools,
    ),
    h('nav', { class: 'nav', 'aria-label': t('nav.label') }, h('div', { class: 'nav-in' }, nav, h('p', { class: 'nav-foot' }, session.version ? raw(`cogo ${session.version}`, 'num') : null))),
    h('div', { class: 'body' }, banner, main),
    h('div', { id: 'toasts', class: 'toasts', role: 'status', 'aria-live': 'polite' }),
  );
  return {
    element,
    main,
    chose(page) {
      chosen = page;
      drawNav();
      // On a phone the way about is wider than the screen.
      nav.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    },
    redraw() {
      fill(element.querySelector('.nav-foot'), session.version ? raw(`cogo ${session.version}`, 'num') : []);
      drawTools();
    },
  };
}

function readOnly() {
  if (!session.admin) return h('span', { class: 'chip', title: t('session.read_only_says') }, icon('eye'), h('span', {}, t('session.read_only')));
  const on = isSwitchedOff();
  return h(
    'button',
    { type: 'button', class: ['chip', 'chip-button', on && 'is-on'], 'aria-pressed': String(on), id: 'read-only', title: t('session.switch_says'), on: { click: () => switchReadOnly(!on) } },
    icon('eye'),
    h('span', {}, t('session.read_only')),
  );
}

function language(again) {
  return h(
    'label',
    { class: 'picker' },
    icon('globe'),
    h('span', { class: 'unseen' }, t('nav.language')),
    h(
      'select',
      {
        id: 'language',
        value: current(),
        on: {
          change: (event) => {
            speak(event.target.value);
            again();
            document.getElementById('language').focus();
          },
        },
      },
      Object.entries(LANGUAGES).map(([tag, name]) => h('option', { value: tag, lang: tag, translate: 'no' }, name)),
    ),
  );
}

function theme(redraw) {
  const now = document.documentElement.dataset.theme ?? 'system';
  const next = { system: 'light', light: 'dark', dark: 'system' }[now];
  return h(
    'button',
    {
      type: 'button',
      id: 'theme',
      class: 'button button-plain button-small',
      title: t('theme.says'),
      on: {
        click: () => {
          keep('cogo.theme', next === 'system' ? null : next);
          if (next === 'system') delete document.documentElement.dataset.theme;
          else document.documentElement.dataset.theme = next;
          redraw();
        },
      },
    },
    icon('sun'),
    h('span', { class: 'wide-only' }, t(`theme.${now}`)),
    h('span', { class: 'unseen narrow-only' }, t(`theme.${now}`)),
  );
}

function helpButton() {
  return h('button', { type: 'button', class: 'button button-plain button-small', id: 'help', 'aria-label': t('help.title'), title: `${t('help.title')} (?)`, on: { click: help } }, icon('help'));
}

function signing() {
  if (hasToken() && session.admin) return button(t('session.sign_out'), () => signOut(), { small: true, sign: 'unlock', id: 'sign-out' });
  return button(t('session.sign_in'), () => askToken(), { small: true, sign: 'lock', tone: 'primary', id: 'sign-in' });
}

