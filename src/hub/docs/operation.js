// One operation: what it takes, what it gives, how to call it.

import { h, prose, resolve, rules, sample, tree, typeOf } from "./schema.js";

/** Where the hub is: this page lies at `api/docs` of it. */
const HUB = new URL("..", location.href);
/** More of an answer than this nobody reads here. */
const SHOWN_MAX = 200_000;
const TOKEN = "cogo.token";

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (value) => (value ? sessionStorage.setItem(TOKEN, value) : sessionStorage.removeItem(TOKEN)),
};

/** Who may call it, in a sentence. */
function who(root, operation) {
  const ways = operation.security ?? root.security ?? [];
  if (ways.length === 0) return "Public: needs no credentials.";
  if (ways.some((way) => Object.keys(way).length === 0)) return "Needs no credentials on this hub; the admin token is taken.";
  return "Needs the admin token, as x-admin-token or as the bearer.";
}

const parametersOf = (root, operation) => (operation.parameters ?? []).map((one) => resolve(root, one));

function url(path, parameters, value) {
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => {
    const parameter = parameters.find((one) => one.in === "path" && one.name === name);
    return encodeURIComponent(value(parameter ?? { name })).replaceAll("%2F", "/");
  });
  const query = new URLSearchParams();
  for (const one of parameters.filter((one) => one.in === "query")) if (value(one) !== "") query.set(one.name, value(one));
  const there = new URL(filled.slice(1), HUB);
  there.search = query.toString();
  return there;
}

function curl(root, { path, method, operation }) {
  const parameters = parametersOf(root, operation);
  const example = (one) => (one.required ? String(one.example ?? sample(root, one.schema)) : "");
  const words = ["curl"];
  if (streams(operation)) words.push("-N");
  if (method !== "get") words.push(`-X ${method.toUpperCase()}`);
  if ((operation.security ?? root.security ?? []).length > 0) words.push('-H "x-admin-token: $COGO_ADMIN_TOKEN"');
  const [type, body] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  if (body) {
    const value = JSON.stringify(body.example ?? sample(root, body.schema));
    words.push(`-H 'content-type: ${type}'`, `-d '${value.replaceAll("'", "'\\''")}'`);
  }
  const there = url(path, parameters, example).href;
  words.push(/[?&]/.test(there) ? `'${there}'` : there);
  return [words.slice(0, 2).join(" "), ...words.slice(2)].join(" \\\n  ");
}

const streams = (operation) => Boolean(operation.responses?.[200]?.content?.["text/event-stream"]);

function copyable(text) {
  const said = h("button", { type: "button", class: "copy" }, "copy");
  said.addEventListener("click", async () => {
    await navigator.clipboard?.writeText(text);
    said.textContent = "copied";
  });
  return h("div", { class: "copyable" }, h("pre", {}, text), said);
}

function parameterTable(root, parameters) {
  const row = (one) => h("tr", {},
    h("td", {}, h("code", {}, one.name), one.required ? h("span", { class: "must" }, " required") : null),
    h("td", { class: "rule" }, one.in),
    h("td", {}, ...prose(one.description), h("div", { class: "rule" }, typeOf(root, one.schema), " ", ...prose(rules(root, one.schema)))));
  const head = h("thead", {}, h("tr", {}, ["name", "in", "what"].map((word) => h("th", { scope: "col" }, word))));
  return h("div", { class: "table" }, h("table", {}, head, h("tbody", {}, parameters.map(row))));
}

function answers(root, operation) {
  return Object.entries(operation.responses ?? {}).map(([status, given]) => {
    const response = resolve(root, given);
    const summary = h("summary", {}, h("b", { class: status < 400 ? "good" : "bad" }, status), " ", ...prose(response.description));
    const details = h("details", { class: "answer", open: status < 300 }, summary);
    for (const [name, header] of Object.entries(response.headers ?? {})) {
      details.append(h("p", { class: "rule" }, "Header ", h("code", {}, name), " ", ...prose(resolve(root, header).description)));
    }
    for (const [type, { schema }] of Object.entries(response.content ?? {})) {
      details.append(h("p", { class: "rule" }, type), schema ? tree(root, schema) : "");
    }
    return details;
  });
}

async function ask(there, output) {
  const headers = token.get() ? { "x-admin-token": token.get() } : {};
  const began = performance.now();
  output.replaceChildren(h("p", { class: "rule" }, "Asking …"));
  try {
    const answer = await fetch(there, { headers, cache: "no-store" });
    const type = answer.headers.get("content-type") ?? "";
    const text = /json|text|javascript|xml/.test(type) ? await answer.text() : `(${(await answer.blob()).size} bytes of ${type || "something"})`;
    let shown = text;
    if (type.includes("json")) try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* as it is */ }
    const took = Math.round(performance.now() - began);
    const more = shown.length > SHOWN_MAX ? "\n… and more" : "";
    output.replaceChildren(
      h("p", {}, h("b", { class: answer.ok ? "good" : "bad" }, `${answer.status}`), h("span", { class: "rule" }, ` ${type} · ${took} ms · ${there.pathname}${there.search}`)),
      h("pre", { tabindex: "0" }, shown.slice(0, SHOWN_MAX) + more));
  } catch (error) {
    output.replaceChildren(h("p", { class: "bad" }, `No answer: ${error.message}`));
  }
}

function trial(root, { path, operation }) {
  const parameters = parametersOf(root, operation).filter((one) => one.in !== "header");
  const inputs = new Map(parameters.map((one) => {
    const choices = resolve(root, one.schema).enum;
    const input = choices
      ? h("select", {}, one.required ? null : h("option", { value: "" }, "—"), choices.map((choice) => h("option", {}, choice)))
      : h("input", { required: one.required, placeholder: one.required ? "" : String(resolve(root, one.schema).default ?? ""), spellcheck: "false" });
    return [one.name, input];
  }));
  const output = h("div", { "aria-live": "polite" });
  const send = (event) => {
    event.preventDefault();
    ask(url(path, parameters, (one) => inputs.get(one.name)?.value ?? ""), output);
  };
  const fields = parameters.map((one) => h("label", {}, h("code", {}, one.name), inputs.get(one.name)));
  return h("form", { class: "try", onsubmit: send }, h("h3", {}, "Try it"), fields.length > 0 ? h("fieldset", {}, fields) : null, h("button", {}, "Send"), output);
}

/** The operation, closed; what is in it is made when it is opened. */
export function show(root, entry) {
  const { path, method, operation } = entry;
  const summary = h("summary", {}, h("span", { class: `method ${method}` }, method), h("span", { class: "path" }, path), h("span", { class: "said" }, operation.summary));
  const details = h("details", { class: "operation", id: operation.operationId }, summary);
  const fill = () => {
    if (details.children.length > 1) return;
    const parameters = parametersOf(root, operation);
    const body = Object.entries(operation.requestBody?.content ?? {});
    details.append(h("div", { class: "inside" },
      operation.description ? h("p", {}, ...prose(operation.description)) : null,
      h("p", { class: "who" }, who(root, operation)),
      parameters.length > 0 ? [h("h3", {}, "Parameters"), parameterTable(root, parameters)] : null,
      body.map(([type, { schema }]) => [h("h3", {}, `Body: ${type}`), tree(root, schema)]),
      h("h3", {}, "Example"), copyable(curl(root, entry)),
      method === "get" && !streams(operation) ? trial(root, entry) : null,
      h("h3", {}, "Answers"), answers(root, operation)));
  };
  details.addEventListener("toggle", () => details.open && fill());
  return details;
}
