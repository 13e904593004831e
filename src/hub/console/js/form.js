// A form from a tool's `inputSchema`. Each control gives its value, or `undefined` where nothing was given; what a
// form cannot show is written as JSON.

import { h, raw } from './dom.js';
import { t } from './i18n.js';
import { button } from './parts.js';
import { readJson } from './act.js';
import { Failure } from './api.js';

let ids = 0;
const DEEP = 6;

/** What a schema asks for, after what JSON Schema lets stand in its place. */
function kindOf(schema, depth) {
  if (typeof schema !== 'object' || schema === null || depth > DEEP) return 'any';
  if (Array.isArray(schema.enum) && schema.enum.length) return 'enum';
  if ('const' in schema) return 'const';
  const types = [schema.type].flat().filter((type) => type && type !== 'null');
  if (types.length !== 1) return schema.properties ? 'object' : 'any';
  if (types[0] === 'object') return schema.properties ? 'object' : 'any';
  if (types[0] === 'array') return schema.items && !Array.isArray(schema.items) && typeof schema.items === 'object' ? 'array' : 'any';
  return types[0];
}

/** `#/$defs/x` of the root, and one `anyOf` that only adds null. */
function resolve(schema, root, depth = 0) {
  if (typeof schema !== 'object' || schema === null || depth > 8) return schema;
  if (typeof schema.$ref === 'string' && schema.$ref.startsWith('#/')) {
    const target = schema.$ref.slice(2).split('/').reduce((at, part) => at?.[part.replace(/~1/g, '/').replace(/~0/g, '~')], root);
    return resolve({ ...target, ...schema, $ref: undefined }, root, depth + 1);
  }
  const choices = (schema.anyOf ?? schema.oneOf)?.filter((choice) => choice?.type !== 'null');
  if (choices?.length === 1) return resolve({ ...choices[0], ...schema, anyOf: undefined, oneOf: undefined }, root, depth + 1);
  return schema;
}

/** The form of a whole schema: `{ element, read(), write(value) }`. `read` throws a `Failure` that names the field. */
export function schemaForm(schema, given) {
  const root = schema ?? { type: 'object' };
  return objectFields(resolve(root, root), root, '', 0, given ?? {});
}

function objectFields(schema, root, path, depth, given) {
  const required = new Set(schema.required ?? []);
  // The database orders names as it likes, so the order says nothing: what must be given comes first.
  const ranked = Object.entries(schema.properties ?? {}).sort(([a], [b]) => required.has(b) - required.has(a));
  const parts = ranked.map(([name, of]) => {
    const at = path ? `${path}.${name}` : name;
    return [name, property(resolve(of, root), root, name, at, depth, required.has(name), given?.[name])];
  });
  return {
    element: h('div', { class: 'fields' }, parts.length ? parts.map(([, part]) => part.element) : h('p', { class: 'dim' }, t('form.no_fields'))),
    read: () => {
      const value = {};
      for (const [name, part] of parts) {
        const of = part.read();
        if (of !== undefined) value[name] = of;
      }
      return value;
    },
    touched: () => parts.some(([, part]) => part.touched()),
  };
}

function property(schema, root, name, path, depth, required, given) {
  const kind = kindOf(schema, depth);
  const start = given !== undefined ? given : schema?.default;
  ids += 1;
  const id = `arg-${ids}`;
  const hint = rules(schema);
  const label = [raw(schema?.title && schema.title !== name ? schema.title : name, 'field-name'), required ? h('span', { class: 'required' }, t('form.required')) : null, raw(typeName(schema, kind), 'field-type')];
  const describe = hint ? { 'aria-describedby': `${id}-hint` } : {};
  const wrap = (control, tag = 'label') =>
    h('div', { class: ['field', `field-${kind}`], data: { path } }, h(tag, tag === 'label' ? { for: id } : { class: 'legend-text' }, label), control, hint ? h('p', { class: 'hint', id: `${id}-hint`, translate: 'no' }, hint) : null);
  const missing = () => {
    throw new Failure({ code: 'invalid_argument', message: t('form.missing', { path }) });
  };

  if (kind === 'object') return group(schema, root, name, path, depth, required, start, label, hint);
  if (kind === 'array') return list(schema, root, path, depth, required, start, wrap, id);
  if (kind === 'const') return { element: wrap(h('output', { id, translate: 'no' }, JSON.stringify(schema.const))), read: () => (required ? schema.const : undefined), touched: () => false };
  if (kind === 'boolean') {
    const options = [['', required ? t('form.choose') : t('form.unset')], ['true', 'true'], ['false', 'false']];
    const control = h('select', { id, ...describe, value: start === undefined ? '' : String(start) }, options.map(([value, text]) => h('option', { value, translate: value ? 'no' : null }, text)));
    return { element: wrap(control), touched: () => control.value !== '', read: () => (control.value === '' ? (required ? missing() : undefined) : control.value === 'true') };
  }
  if (kind === 'enum') {
    const at = schema.enum.findIndex((value) => JSON.stringify(value) === JSON.stringify(start));
    const control = h(
      'select',
      { id, ...describe, value: at < 0 ? '' : String(at) },
      h('option', { value: '' }, required ? t('form.choose') : t('form.unset')),
      schema.enum.map((value, index) => h('option', { value: String(index), translate: 'no' }, typeof value === 'string' ? value : JSON.stringify(value))),
    );
    return { element: wrap(control), touched: () => control.value !== '', read: () => (control.value === '' ? (required ? missing() : undefined) : schema.enum[Number(control.value)]) };
  }
  if (kind === 'number' || kind === 'integer') {
    const control = h('input', { id, ...describe, type: 'text', inputmode: kind === 'integer' ? 'numeric' : 'decimal', autocomplete: 'off', class: 'num', value: start === undefined ? '' : String(start) });
    const read = () => {
      const text = control.value.trim();
      if (text === '') return required ? missing() : undefined;
      const number = Number(text);
      const fits = Number.isFinite(number) && (kind === 'number' || Number.isInteger(number));
      if (!fits) throw new Failure({ code: 'invalid_argument', message: t(`form.not_${kind}`, { path }) });
      return number;
    };
    return { element: wrap(control), read, touched: () => control.value.trim() !== '' };
  }
  if (kind === 'string') {
    const long = schema.maxLength === undefined || schema.maxLength > 200;
    const text = start === undefined ? '' : String(start);
    const control = h(long ? 'textarea' : 'input', { id, ...describe, ...(long ? { rows: Math.min(8, Math.max(1, text.split('\n').length)) } : { type: 'text' }), autocomplete: 'off', spellcheck: 'false', value: text });
    // An empty text is a text; only where nobody wrote and nobody must is it left out.
    return { element: wrap(control), touched: () => control.value !== '', read: () => (control.value !== '' ? control.value : required ? '' : undefined) };
  }
  const control = h('textarea', { id, ...describe, class: 'code-input', rows: 2, spellcheck: 'false', translate: 'no', placeholder: 'JSON', value: start === undefined ? '' : JSON.stringify(start, null, 2) });
  return { element: wrap(control), touched: () => control.value.trim() !== '', read: () => (control.value.trim() === '' ? (required ? missing() : undefined) : readJson(control.value, path)) };
}

function group(schema, root, name, path, depth, required, start, label, hint) {
  const inner = objectFields(schema, root, path, depth + 1, start);
  const element = h('fieldset', { class: 'field field-object', data: { path } }, h('legend', {}, label), hint ? h('p', { class: 'hint', translate: 'no' }, hint) : null, inner.element);
  // One that nobody touched and nobody needs is not sent, however much it would need itself.
  return { element, touched: inner.touched, read: () => (required || inner.touched() ? inner.read() : undefined) };
}

function list(schema, root, path, depth, required, start, wrap, id) {
  const items = resolve(schema.items, root);
  const rows = h('div', { class: 'list-rows' });
  const parts = [];
  const add = (value) => {
    const part = property(items, root, `${parts.length + 1}`, `${path}[${parts.length}]`, depth + 1, true, value);
    const remove = button(t('form.remove'), () => {
      parts.splice(parts.indexOf(entry), 1);
      entry.row.remove();
    }, { small: true, sign: 'close' });
    const entry = { part, row: h('div', { class: 'list-row' }, part.element, remove) };
    parts.push(entry);
    rows.append(entry.row);
  };
  for (const value of Array.isArray(start) ? start : []) add(value);
  const more = button(t('form.add'), () => {
    add(undefined);
    rows.lastElementChild.querySelector('input, textarea, select')?.focus();
  }, { small: true, sign: 'plus', id });
  return {
    element: wrap(h('div', {}, rows, more), 'span'),
    touched: () => parts.length > 0,
    read: () => (parts.length || required ? parts.map(({ part }) => part.read()) : undefined),
  };
}

function typeName(schema, kind) {
  if (kind === 'any') return [schema?.type].flat().filter(Boolean).join(' | ') || 'any';
  return kind === 'array' ? `${[schema.items?.type].flat()[0] ?? 'any'}[]` : kind;
}

/** The description, and the rules as the schema writes them. */
function rules(schema) {
  const named = ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'minLength', 'maxLength', 'pattern', 'format', 'minItems', 'maxItems', 'multipleOf'];
  const said = named.filter((name) => schema?.[name] !== undefined).map((name) => `${name} ${schema[name]}`);
  return [schema?.description, said.join(' · ')].filter(Boolean).join(' — ');
}
