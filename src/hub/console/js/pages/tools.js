// All tools of all machines; each is called from a form that its own schema makes.

import { readJson } from '../act.js';
import { Failure, actFor, get, post } from '../api.js';
import { code, fill, h, raw } from '../dom.js';
import { schemaForm } from '../form.js';
import { count, t } from '../i18n.js';
import { icon } from '../icons.js';
import { json } from '../json.js';
import { title } from '../listing.js';
import { button, copyButton, empty, failure, field, loading, note, panel, snippet, took } from '../parts.js';
import { result } from '../result.js';
import { to } from '../router.js';
import { mayAct, session } from '../session.js';

/** What was written last into each tool's form, as long as the page is open. */
const drafts = new Map();
const WAIT = '30s';

export default {
  show(main, { parts: [toolset, tool], query, signal }) {
    main.append(title(t('nav.tools'), t('tools.says')));
    if (!session.admin) {
      main.append(h('div', { class: 'panel' }, note('info', 'lock', t('tools.sign_in')), snippet('cogo mcp tools')));
      return;
    }
    const place = h('div', {}, loading());
    main.append(place);
    load(place, { toolset, tool, query, signal });
  },
};

async function load(place, { toolset, tool, query, signal }) {
  actFor(query.tenant || null);
  signal.addEventListener('abort', () => actFor(null));
  try {
    const [offered, pinned] = await Promise.all([get('/api/mcp/tools', {}, signal), get('/api/mcp/pins', {}, signal)]);
    const definitions = new Map(pinned.pins.map((pin) => [`${pin.toolset}/${pin.tool}`, pin.definition]));
    const all = offered.tools.map((of) => ({ ...of, definition: definitions.get(`${of.toolset}/${of.tool}`) ?? null }));
    place.replaceChildren(...draw(all, offered, { toolset, tool, query, signal }));
  } catch (error) {
    if (error.name !== 'AbortError') place.replaceChildren(failure(error, () => load(place, { toolset, tool, query, signal })));
  }
}

function draw(all, { held = [] }, { toolset, tool, query, signal }) {
  if (!all.length) return [h('div', { class: 'panel' }, empty(t('tools.none'), t('tools.none_says'), 'cogo mcp add browser --url ws://localhost:3004'))];
  const list = h('div', { class: 'tool-list' });
  const chosen = all.find((of) => of.toolset === toolset && of.tool === tool);
  const search = h('input', { type: 'search', autocomplete: 'off', spellcheck: 'false', 'data-filter': '', 'aria-label': t('tools.find'), placeholder: t('tools.find'), on: { input: () => drawList() } });
  const drawList = () => {
    const wanted = search.value.trim().toLowerCase();
    const fit = all.filter((of) => !wanted || `${of.toolset}/${of.tool} ${of.title ?? ''} ${of.description ?? ''}`.toLowerCase().includes(wanted));
    const groups = Map.groupBy ? Map.groupBy(fit, (of) => of.toolset) : fit.reduce((map, of) => map.set(of.toolset, [...(map.get(of.toolset) ?? []), of]), new Map());
    fill(
      list,
      fit.length ? [] : empty(t('tools.none_fit')),
      [...groups].map(([name, tools]) => [
        h('h2', { class: 'group', translate: 'no' }, name),
        h('ul', { class: 'plain', 'data-walk': '' }, tools.map((of) => h('li', {}, h('a', { class: 'tool-link', href: to('tools', [of.toolset, of.tool], query), 'aria-current': of === chosen ? 'true' : null }, raw(of.tool, 'tool-link-name'), raw(of.title ?? of.description ?? '', 'tool-link-says'))))),
      ]),
    );
  };
  drawList();
  const says = held.length ? note('warn', 'alert', count('tools.held', held.length), ' ', code('cogo mcp pins')) : null;
  return [says, h('div', { class: ['split', chosen && 'has-choice'] }, h('div', { class: 'panel split-list' }, search, list), h('div', { class: 'split-body' }, chosen ? toolPage(chosen, signal) : panel(null, empty(t('tools.choose'), t('tools.choose_says')))))].filter(Boolean);
}

function toolPage(of, signal) {
  const name = `${of.toolset}/${of.tool}`;
  const schema = of.definition?.inputSchema ?? { type: 'object', properties: {} };
  const outcome = h('div', { class: 'outcome', 'aria-live': 'polite' });
  const answer = h('div', {});
  const editor = argumentsOf(schema, drafts.get(name));
  const run = button(t('tools.call'), null, { tone: 'primary', type: 'submit', sign: 'play', id: 'call' });
  const form = h(
    'form',
    {
      on: {
        submit: async (event) => {
          event.preventDefault();
          run.disabled = true;
          form.querySelectorAll('.is-wrong').forEach((at) => at.classList.remove('is-wrong'));
          fill(outcome, loading());
          try {
            const given = editor.read();
            drafts.set(name, given);
            answer.replaceChildren();
            await send(of, given, outcome, answer, signal);
          } catch (error) {
            if (error.name === 'AbortError') return;
            mark(form, error);
            fill(outcome, failure(error), error.traceId ? traceLink(error.traceId) : []);
          } finally {
            run.disabled = false;
          }
        },
      },
    },
    editor.element,
    mayAct() ? h('div', { class: 'row' }, run, copyButton(() => curl(of, editor), t('tools.copy_curl'), t('tools.copy_curl'))) : note('plain', 'eye', t('tools.read_only')),
  );
  return [
    h('p', { class: 'back-link' }, h('a', { href: to('tools') }, t('tools.back'))),
    panel(
      [raw(of.toolset, 'dim'), h('span', { class: 'slash' }, '/'), raw(of.tool)],
      [
        of.definition?.title || of.title ? h('p', { class: 'lead', translate: 'no' }, of.definition?.title ?? of.title) : null,
        h('p', { translate: 'no' }, of.description ?? ''),
        h('div', { class: 'row' }, hint(of.read_only, 'read_only'), hint(of.idempotent, 'idempotent'), h('span', { class: 'badge badge-mute' }, icon('workers'), count('tools.workers', of.workers))),
        form,
      ],
    ),
    outcome,
    answer,
    panel(null, h('details', { class: 'fold' }, h('summary', {}, t('tools.schema')), json(of.definition ?? schema))),
  ];
}

function hint(given, name) {
  return h('span', { class: ['badge', given ? 'badge-ok' : 'badge-warn'], title: t(`tools.${name}_says`) }, icon(given ? 'check' : 'alert'), t(given ? `tools.${name}` : `tools.not_${name}`));
}

/** The form, or the same as JSON. */
function argumentsOf(schema, draft) {
  const place = h('div', {});
  let form = schemaForm(schema, draft);
  const text = h('textarea', { class: 'code-input', rows: 8, spellcheck: 'false', translate: 'no' });
  let asJson = false;
  const given = () => {
    const value = readJson(text.value || '{}', 'arguments');
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Failure({ code: 'invalid_argument', message: t('form.not_object') });
    return value;
  };
  const trouble = h('div', {});
  const draw = () => fill(place, asJson ? h('div', { 'data-key': 'json' }, field(t('tools.arguments'), text)) : h('div', { 'data-key': 'form', 'data-keep': '' }, form.element));
  const turn = () => {
    fill(trouble);
    if (asJson) {
      try {
        form = schemaForm(schema, given());
      } catch (error) {
        fill(trouble, failure(error));
        return;
      }
    } else {
      let value = draft ?? {};
      try {
        value = form.read();
      } catch {
        // Half of a form is no object yet: what was there before is as good.
      }
      text.value = JSON.stringify(value, null, 2);
    }
    asJson = !asJson;
    place.replaceChildren();
    draw();
    fill(toggle.querySelector('span'), t(asJson ? 'tools.as_form' : 'tools.as_json'));
  };
  const toggle = button(t('tools.as_json'), turn, { small: true, id: 'as-json' });
  draw();
  return { element: h('div', {}, h('div', { class: 'row row-between' }, h('h3', {}, t('tools.arguments')), toggle), place, trouble), read: () => (asJson ? given() : form.read()) };
}

function mark(form, error) {
  const path = /^([\w.[\]-]+):/.exec(error.message)?.[1];
  const at = path && [...form.querySelectorAll('[data-path]')].find((part) => part.dataset.path === path);
  if (!at) return;
  at.classList.add('is-wrong');
  at.querySelector('input, textarea, select')?.focus();
}

function traceLink(id) {
  return h('p', {}, h('a', { class: 'button button-plain', href: to('trace', [id]) }, icon('traces'), h('span', {}, t('tools.trace'))));
}

async function send(of, given, outcome, answer, signal) {
  const began = performance.now();
  const told = await post(`/api/mcp/${encodeURIComponent(of.toolset)}/${encodeURIComponent(of.tool)}`, given, { query: { wait: WAIT }, signal });
  const ms = performance.now() - began;
  const wrong = told.result?.isError === true;
  const pending = told.result === undefined;
  fill(
    outcome,
    h(
      'section',
      { class: ['panel', 'outcome-panel', pending ? 'outcome-wait' : wrong ? 'outcome-bad' : 'outcome-ok'] },
      h('div', { class: 'panel-head' }, h('h2', {}, pending ? t('tools.pending') : wrong ? t('tools.failed') : t('tools.done')), h('p', { class: 'panel-note' }, took(ms), told.duplicate ? t('tools.duplicate') : null)),
      pending ? h('p', {}, t('tools.pending_says')) : null,
      told.trace_id ? traceLink(told.trace_id) : null,
    ),
  );
  if (!pending) answer.append(panel(t('tools.result'), result(told.result, signal)));
}

function curl(of, editor) {
  let given = {};
  try {
    given = editor.read();
  } catch {
    // What is there is wrong; the command is as good a place to mend it.
  }
  const quoted = JSON.stringify(given).replaceAll("'", "'\\''");
  return `curl -s -X POST '${location.origin}/api/mcp/${of.toolset}/${of.tool}' -H "x-admin-token: $TOKEN" -H 'content-type: application/json' -d '${quoted}'`;
}

