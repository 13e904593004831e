// What a tool gave back: texts, pictures, links, structured content.

import { contents, picture, PICTURES } from './artifact.js';
import { code, h, raw } from './dom.js';
import { t } from './i18n.js';
import { json, jsonOrText } from './json.js';

/** The path on this hub that an address leads to, or `null`. */
function local(uri) {
  try {
    const url = new URL(uri, location.origin);
    return url.origin === location.origin && /^\/(artifacts|mcp\/artifacts)\//.test(url.pathname) ? url.pathname : null;
  } catch {
    return null;
  }
}

export function result(given, signal) {
  if (given === null || given === undefined) return null;
  if (!Array.isArray(given.content)) return json(given);
  const parts = given.content.map((part) => h('div', { class: 'result-part' }, one(part, signal)));
  return h(
    'div',
    { class: 'result' },
    parts.length ? parts : h('p', { class: 'dim' }, t('result.empty')),
    given.structuredContent === undefined ? null : [h('h3', {}, t('result.structured')), json(given.structuredContent)],
  );
}

function one(part, signal) {
  if (part.type === 'text') return jsonOrText(part.text ?? '');
  if (part.type === 'image' && PICTURES.includes(part.mimeType) && /^[A-Za-z0-9+/=\s]*$/.test(part.data ?? '')) {
    return picture(`data:${part.mimeType};base64,${part.data.replace(/\s/g, '')}`);
  }
  if (part.type === 'resource_link') {
    const path = local(part.uri);
    return [h('p', {}, t('result.link'), ' ', code(part.uri), ' ', raw(part.mimeType ?? '', 'dim')), path ? contents(path, signal) : null];
  }
  if (part.type === 'resource' && typeof part.resource?.text === 'string') return [h('p', {}, code(part.resource.uri)), jsonOrText(part.resource.text)];
  return json(part);
}
