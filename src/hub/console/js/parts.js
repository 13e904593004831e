// What several pages are made of: badges, buttons, tables, notes, empty states.

import { code, h, raw } from './dom.js';
import { has, t } from './i18n.js';
import { icon } from './icons.js';
import { ago, span, time } from './format.js';

/** How each status looks, and which sign says the same without colour. */
const STATUS = {
  done: ['ok', 'check'],
  succeeded: ['ok', 'check'],
  online: ['ok', 'check'],
  closed: ['ok', 'check'],
  failed: ['bad', 'cross'],
  offline: ['mute', 'cross'],
  open: ['bad', 'alert'],
  half_open: ['warn', 'clock'],
  waiting: ['info', 'clock'],
  queued: ['info', 'clock'],
  delayed: ['warn', 'clock'],
  parked: ['warn', 'pause'],
  claimed: ['info', 'play'],
  cancelled: ['mute', 'cross'],
  unknown: ['mute', 'dot'],
};

export function status(word) {
  const [tone, sign] = STATUS[word] ?? STATUS.unknown;
  const name = has(`status.${word}`) ? t(`status.${word}`) : raw(word);
  return h('span', { class: ['badge', `badge-${tone}`] }, icon(sign), name);
}

/** The class of a failure: a word of the bus, explained on hover and, on a trace's page, in full. */
export function classBadge(word) {
  if (!word) return null;
  const known = has(`class.${word}.means`);
  return h('span', { class: 'badge badge-class', translate: 'no', title: known ? t(`class.${word}.means`) : null }, word);
}

/** A time, told as how long ago; the whole of it on hover. */
export function when(text) {
  return text ? h('time', { datetime: text, title: new Date(text).toISOString(), translate: 'no', class: 'num nowrap' }, ago(text)) : raw('–');
}

export function clock(text) {
  return text ? h('time', { datetime: text, title: new Date(text).toISOString(), translate: 'no', class: 'num nowrap' }, time(text, { ms: true })) : raw('–');
}

export function took(ms) {
  return raw(span(ms), 'num nowrap');
}

/** `toolset` and `tool` as people call it. */
export function toolName(toolset, tool) {
  return h('span', { class: 'tool-name', translate: 'no' }, toolset ?? '?', h('span', { class: 'slash' }, '/'), tool ?? '–');
}

/** The tool of a message, from its payload; other intents have none. */
export function toolOf({ service, tool, payload, intent }) {
  return toolName(payload?.toolset ?? service, tool ?? payload?.tool ?? intent);
}

export function button(label, run, { tone = 'plain', sign, small, ...props } = {}) {
  return h('button', { type: 'button', class: ['button', `button-${tone}`, small && 'button-small'], on: { click: run }, ...props }, sign ? icon(sign) : null, h('span', {}, label));
}

export function link(label, href, props = {}) {
  return h('a', { href, ...props }, label);
}

/** A heading with what belongs to it. */
export function panel(title, children, { note, actions, className, level = 2, id } = {}) {
  const heading = title ? h('div', { class: 'panel-head' }, h(`h${level}`, {}, title), note ? h('p', { class: 'panel-note' }, note) : null, actions ? h('div', { class: 'panel-actions' }, actions) : null) : null;
  return h('section', { class: ['panel', className], id }, heading, children);
}

/**
 * A table whose rows are walked with the arrow keys. `columns`: `{ head, cell(row), class, label }`; the first cell
 * that holds a link is a row's own.
 */
export function table(columns, rows, { key, caption, rowClass } = {}) {
  return h(
    'div',
    { class: 'table-wrap' },
    h(
      'table',
      { class: 'table' },
      caption ? h('caption', { class: 'unseen' }, caption) : null,
      h('thead', {}, h('tr', {}, columns.map((column) => h('th', { scope: 'col', class: column.class }, column.head)))),
      h(
        'tbody',
        { 'data-walk': '' },
        rows.map((row) =>
          h(
            'tr',
            { 'data-key': key ? key(row) : null, class: rowClass?.(row) },
            columns.map((column) => h('td', { class: column.class, 'data-label': typeof column.head === 'string' ? column.head : null }, column.cell(row))),
          ),
        ),
      ),
    ),
  );
}

/** Where there is nothing yet: what would be here, and how to bring it about. */
export function empty(title, says, command) {
  return h('div', { class: 'empty' }, h('p', { class: 'empty-title' }, title), says ? h('p', {}, says) : null, command ? snippet(command) : null);
}

/** A command to be copied. */
export function snippet(text) {
  return h('div', { class: 'snippet' }, h('pre', { translate: 'no', tabindex: '0' }, text), copyButton(() => text));
}

export function copyButton(text, label = t('action.copy'), shown) {
  const live = h('button', { type: 'button', class: ['button', 'button-plain', shown ? 'button-copy' : 'button-small copy'], 'aria-label': label, title: label }, icon('copy'), shown ? h('span', {}, shown) : null);
  live.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text());
      announce(t('said.copied'));
    } catch {
      announce(t('said.not_copied'));
    }
  });
  return live;
}

/** The curl command of a first call. */
export function firstCall() {
  return `curl -s -X POST ${location.origin}/api/mcp/enqueue \\
  -H "x-admin-token: $(cat ~/.local/share/cogo/admin-token)" \\
  -H 'content-type: application/json' \\
  -d '{"toolset":"demo","tool":"echo","params":{"message":"hello"}}'`;
}

/** What went wrong with a call of the hub, in the hub's words. */
export function failure(error, again) {
  return h(
    'div',
    { class: 'note note-bad', role: 'alert' },
    icon('alert'),
    h(
      'div',
      {},
      h('p', {}, h('strong', {}, t('error.title')), ' ', code(error.code ?? 'internal')),
      error.isLost ? h('p', {}, t('error.unreachable')) : h('p', { translate: 'no' }, error.message),
      error.traceId && error.status >= 500 ? h('p', { class: 'dim' }, t('error.trace'), ' ', code(error.traceId)) : null,
    ),
    again ? button(t('action.again'), again, { small: true, sign: 'retry' }) : null,
  );
}

export function note(tone, sign, ...children) {
  return h('div', { class: ['note', `note-${tone}`] }, icon(sign), h('div', {}, children));
}

/** Bones of what is being fetched; still where motion is unwanted. */
export function loading() {
  return h('div', { class: 'loading', role: 'status' }, h('span', { class: 'unseen' }, t('said.loading')), h('i', {}), h('i', {}), h('i', {}));
}

/** Says something once, to be seen and to be heard. */
export function announce(text, tone = 'plain') {
  const place = document.getElementById('toasts');
  const toast = h('div', { class: ['toast', `toast-${tone}`] }, text);
  place?.append(toast);
  setTimeout(() => toast.remove(), tone === 'bad' ? 9000 : 4500);
}

let fields = 0;
/** A labelled control. */
export function field(label, control, { hint, className } = {}) {
  fields += 1;
  const id = control.id || `field-${fields}`;
  control.id = id;
  if (hint) control.setAttribute('aria-describedby', `${id}-hint`);
  return h('div', { class: ['field', className] }, h('label', { for: id }, label), control, hint ? h('p', { class: 'hint', id: `${id}-hint` }, hint) : null);
}

export function select(options, value, change) {
  return h('select', { value, on: { change: (event) => change(event.target.value) } }, options.map(([of, name, isData]) => h('option', { value: of, translate: isData ? 'no' : null }, name)));
}
