// Elements without markup: text is always text here, so nothing that a tool or a person wrote can become an element.

const SVG = 'http://www.w3.org/2000/svg';

/** An element. `props`: `class`, `on` (listeners by name), `vars` (CSS variables), `data`; anything else is an attribute. */
export function h(tag, props, ...children) {
  return build(document.createElement(tag), props, children);
}

/** An element of an SVG. */
export function s(tag, props, ...children) {
  return build(document.createElementNS(SVG, tag), props, children);
}

function build(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'class') element.setAttribute('class', [value].flat().filter(Boolean).join(' '));
    else if (name === 'on') for (const [event, run] of Object.entries(value)) listen(element, event, run);
    else if (name === 'vars') for (const [key, set] of Object.entries(value)) element.style.setProperty(key, set);
    else if (name === 'data') Object.assign(element.dataset, value);
    else if (name === 'value' || name === 'checked') element[name] = value;
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  // After its options are there.
  if (props?.value !== undefined && element.tagName === 'SELECT') element.value = props.value;
  return element;
}

/** One listener a name, which a morph can replace: what it closes over is then the newest. */
function listen(element, event, run) {
  element.listeners ??= {};
  if (!(event in element.listeners)) element.addEventListener(event, (given) => element.listeners[event]?.(given));
  element.listeners[event] = run;
}

/** Makes what stands in `parent` like `children`, and keeps what is there where it can: focus, selection, scroll. */
export function fill(parent, ...children) {
  const next = document.createDocumentFragment();
  next.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  morphChildren(parent, next);
  return parent;
}

const keyOf = (node) => (node.nodeType === 1 ? (node.getAttribute('data-key') ?? null) : null);

function alike(have, want) {
  return have.nodeType === want.nodeType && have.nodeName === want.nodeName && keyOf(have) === keyOf(want);
}

function morphChildren(parent, next) {
  const keyed = new Map();
  for (const child of parent.childNodes) if (keyOf(child) !== null) keyed.set(keyOf(child), child);
  let cursor = parent.firstChild;
  for (const want of [...next.childNodes]) {
    const have = keyOf(want) === null ? cursor : keyed.get(keyOf(want));
    if (!have || have.parentNode !== parent || !alike(have, want)) {
      parent.insertBefore(want, cursor);
      continue;
    }
    if (have === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(have, cursor);
    morph(have, want);
  }
  while (cursor) {
    const gone = cursor;
    cursor = cursor.nextSibling;
    gone.remove();
  }
}

function morph(have, want) {
  if (have.nodeType !== 1) {
    if (have.data !== want.data) have.data = want.data;
    return;
  }
  // What fills itself, and a person's own state, is left alone.
  if (have.hasAttribute('data-keep') && want.hasAttribute('data-keep')) return;
  for (const { name } of [...have.attributes]) {
    if (!want.hasAttribute(name) && name !== 'open' && name !== 'tabindex') have.removeAttribute(name);
  }
  for (const { name, value } of [...want.attributes]) {
    if (name === 'open' || (name === 'tabindex' && have.hasAttribute('tabindex'))) continue;
    if (have.getAttribute(name) !== value) have.setAttribute(name, value);
  }
  for (const event of Object.keys(have.listeners ?? {})) if (!want.listeners?.[event]) have.listeners[event] = undefined;
  for (const [event, run] of Object.entries(want.listeners ?? {})) listen(have, event, run);
  if (have.nodeName === 'INPUT' && have.type === 'checkbox') have.checked = want.checked;
  morphChildren(have, want);
}

/** What a machine or a person wrote, and no translator should touch. */
export function raw(text, className, props) {
  return h('span', { class: className, translate: 'no', ...props }, String(text ?? ''));
}

/** The same, in the typeface of code. */
export function code(text, className) {
  return h('code', { class: className, translate: 'no' }, String(text ?? ''));
}
