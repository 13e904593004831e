// JSON Schemas for people: what a value looks like, its rules, and an example of it.

/** An element. Text goes in as text: nothing of the document is ever read as HTML. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (attribute.startsWith("on")) element.addEventListener(attribute.slice(2), value);
    else if (value === true) element.setAttribute(attribute, "");
    else if (value !== false && value != null) element.setAttribute(attribute, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

/** Text with `code` and **strong** in it. */
export function prose(text = "") {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (part.startsWith("`") && part.length > 2) return h("code", {}, part.slice(1, -1));
    if (part.startsWith("**") && part.length > 4) return h("strong", {}, part.slice(2, -2));
    return part;
  });
}

/** What `value` stands for, its `$ref` followed; what stands beside the `$ref` counts more. */
export function resolve(root, value) {
  let found = value, beside = {};
  for (let steps = 0; found?.$ref && steps < 20; steps++) {
    const { $ref, ...more } = found;
    beside = { ...more, ...beside };
    const names = $ref.slice(2).split("/").map((name) => name.replaceAll("~1", "/").replaceAll("~0", "~"));
    found = names.reduce((at, name) => at?.[name], root);
  }
  return { ...found, ...beside };
}

const nameOf = (schema) => schema?.$ref?.match(/^#\/components\/schemas\/(\w+)$/)?.[1];

/** The type in a few words. */
export function typeOf(root, schema) {
  const full = resolve(root, schema);
  const variants = full.oneOf ?? full.anyOf;
  if (variants && !full.properties) return [...new Set(variants.map((one) => typeOf(root, one)))].join(" or ");
  if (full.const !== undefined) return JSON.stringify(full.const);
  const types = [full.type ?? "any"].flat();
  const words = types.map((type) => (type === "array" && full.items ? `array of ${nameOf(full.items) ?? typeOf(root, full.items)}` : type));
  return nameOf(schema) && types.includes("object") ? nameOf(schema) : words.join(" or ");
}

/** The rules that a value follows. */
export function rules(root, schema) {
  const full = resolve(root, schema);
  const said = [];
  if (full.enum) said.push(full.enum.map((value) => JSON.stringify(value)).join(", "));
  if (full.minimum !== undefined || full.maximum !== undefined) said.push(`${full.minimum ?? "…"} to ${full.maximum ?? "…"}`);
  if (full.minLength || full.maxLength) said.push(`${full.minLength ?? 0} to ${full.maxLength ?? "any number of"} characters`);
  if (full.minItems || full.maxItems) said.push(`${full.minItems ?? 0} to ${full.maxItems ?? "any number of"} items`);
  if (full.format) said.push(full.format);
  else if (full.pattern) said.push((schema.$ref && !schema.description && full.description) || full.pattern);
  if (full.default !== undefined) said.push(`default ${JSON.stringify(full.default)}`);
  return said.join(" · ");
}

function members(root, schema) {
  const full = resolve(root, schema);
  if (full.properties) {
    return Object.entries(full.properties).map(([name, value]) => [name, value, full.required?.includes(name)]);
  }
  const items = [full.items && ["each item", full.items], typeof full.additionalProperties === "object" && ["each member", full.additionalProperties]];
  return items.filter(Boolean).filter(([, value]) => inner(root, value).length > 0);
}

function variants(root, schema) {
  const full = resolve(root, schema);
  return full.properties ? [] : (full.oneOf ?? full.anyOf ?? []).filter((one) => inner(root, one).length > 0);
}

const inner = (root, schema) => [...members(root, schema), ...variants(root, schema)];

/** A schema as a tree; what is deep opens when asked. */
export function tree(root, schema, depth = 0) {
  const lines = members(root, schema).map(([name, value, must]) => line(root, name, value, must, depth));
  const others = variants(root, schema).map((one, at) => line(root, nameOf(one) ?? `form ${at + 1}`, one, false, depth));
  const full = resolve(root, schema);
  const own = lines.length + others.length === 0;
  const head = depth === 0 && h("p", { class: "rule" }, typeOf(root, schema), own ? [" ", ...prose(rules(root, schema))] : "",
    full.description ? [" — ", ...prose(full.description)] : "");
  return h("div", { class: "schema" }, head, own ? null : h("ul", {}, lines, others));
}

/** What its description says, unless the rules say it. */
function told(root, schema) {
  const { description, pattern, format } = resolve(root, schema);
  return description && !(schema.$ref && !schema.description && pattern && !format) ? [" ", ...prose(description)] : null;
}

function line(root, name, schema, must, depth) {
  const full = resolve(root, schema);
  const words = [h("code", {}, name), " ", h("span", { class: "rule" }, typeOf(root, schema)), must ? h("span", { class: "must" }, " required") : null,
    h("span", { class: "rule" }, " ", ...prose(rules(root, schema))), told(root, schema)];
  if (inner(root, schema).length === 0) return h("li", {}, words);
  const details = h("details", {}, h("summary", {}, words));
  const open = () => details.children.length === 1 && details.append(tree(root, schema, depth + 1));
  details.addEventListener("toggle", open, { once: true });
  if (depth === 0 && full.properties && Object.keys(full.properties).length <= 8) {
    open();
    details.open = true;
  }
  return h("li", {}, details);
}

/** A value that fits. */
export function sample(root, schema, depth = 0) {
  const full = resolve(root, schema);
  for (const known of [full.example, full.default, full.const, full.enum?.[0]]) if (known !== undefined) return known;
  if (depth > 6) return null;
  const one = (full.oneOf ?? full.anyOf)?.[0];
  if (one && !full.properties) return sample(root, one, depth + 1);
  const type = [full.type].flat()[0];
  if (full.properties) {
    const wanted = Object.entries(full.properties).filter(([name]) => full.required?.includes(name));
    return Object.fromEntries(wanted.map(([name, value]) => [name, sample(root, value, depth + 1)]));
  }
  return { array: [], object: {}, integer: full.minimum ?? 1, number: full.minimum ?? 1, boolean: true, string: "…", null: null }[type] ?? null;
}
