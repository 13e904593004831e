// What an attempt left behind, opened in place.

import { call, get } from './api.js';
import { h, raw, fill } from './dom.js';
import { bytes } from './format.js';
import { t } from './i18n.js';
import { jsonOrText } from './json.js';
import { failure, loading, note } from './parts.js';

/** Pictures that a browser draws and cannot run. */
export const PICTURES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/avif'];
/** What is larger is offered to be saved. */
const SHOWN_MAX = 2 << 20;
/** What an attempt leaves, if it got so far. */
const USUAL = ['error.json', 'response.json', 'request.json', 'summary.json'];

const pathOf = (name) => `/artifacts/${name.split('/').map(encodeURIComponent).join('/')}`;

/** The contents of `href`, drawn into an element that is given at once. */
export function contents(href, signal) {
  const place = h('div', { class: 'artifact-body', 'data-keep': '' }, loading());
  (async () => {
    try {
      const response = await call(href, { signal });
      const mime = (response.headers.get('content-type') ?? '').split(';')[0].trim();
      const blob = await response.blob();
      place.replaceChildren(...(await drawn(blob, mime, href)));
    } catch (error) {
      if (error.name === 'AbortError') return;
      place.replaceChildren(error.status === 404 ? note('plain', 'artifacts', t('artifact.gone')) : failure(error));
    }
  })();
  return place;
}

async function drawn(blob, mime, href) {
  const save = h('p', { class: 'artifact-foot dim' }, raw(`${mime || '?'} · ${bytes(blob.size)}`), ' ', saveLink(blob, href));
  if (PICTURES.includes(mime)) return [picture(URL.createObjectURL(blob)), save];
  const textual = mime.startsWith('text/') || mime.endsWith('json') || mime === '' || mime.endsWith('xml');
  if (!textual || blob.size > SHOWN_MAX) return [note('plain', 'artifacts', textual ? t('artifact.large') : t('artifact.binary')), save];
  return [jsonOrText(await blob.text()), save];
}

function saveLink(blob, href) {
  const name = decodeURIComponent(href.split('/').pop());
  return h('a', { href: URL.createObjectURL(new Blob([blob], { type: 'application/octet-stream' })), download: name }, t('action.save'));
}

export function picture(src) {
  return h('img', { class: 'picture', src, alt: t('artifact.picture') });
}

/** The files of one attempt as tabs; the one that says most is open. `folder` is what the event names. */
export function attemptFiles(folder, signal, wanted) {
  const tabs = h('div', { class: 'tabs', role: 'group', 'aria-label': t('artifact.files') });
  const body = h('div', {});
  const place = h('div', { class: 'attempt-files', 'data-keep': '' }, tabs, body);
  const open = (name) => {
    for (const tab of tabs.children) tab.setAttribute('aria-pressed', String(tab.dataset.name === name));
    body.replaceChildren(contents(pathOf(`${folder}/${name}`), signal));
  };
  (async () => {
    const names = await listed(folder, signal);
    if (signal.aborted) return;
    if (!names.length) {
      body.replaceChildren(note('plain', 'artifacts', t('artifact.none')));
      return;
    }
    fill(tabs, names.map((name) => h('button', { type: 'button', class: 'tab', translate: 'no', data: { name }, 'aria-pressed': 'false', on: { click: () => open(name) } }, name)));
    open(names.includes(wanted) ? wanted : names[0]);
  })();
  return place;
}

async function listed(folder, signal) {
  try {
    const { artifacts } = await get('/api/artifacts', { prefix: `${folder}/`, limit: 50 }, signal);
    const names = artifacts.map(({ name }) => name.slice(folder.length + 1)).filter((name) => !name.includes('/'));
    const rank = (name) => (USUAL.includes(name) ? USUAL.indexOf(name) : USUAL.length);
    return names.sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  } catch (error) {
    if (error.name === 'AbortError') return [];
    // A store that cannot list: these are what there can be.
    return USUAL;
  }
}
