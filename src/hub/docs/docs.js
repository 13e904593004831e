// The page: the operations of this hub's description, by tag, to be filtered and opened.

import { show, token } from "./operation.js";
import { h, prose } from "./schema.js";

const METHODS = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
const by = (id) => document.getElementById(id);

function entries(root) {
  return Object.entries(root.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ path, method, operation: item[method] })));
}

/** What the filter looks into. */
const words = ({ path, method, operation }) =>
  [method, path, operation.summary, operation.operationId, ...(operation.tags ?? [])].join(" ").toLowerCase();

function draw(root) {
  const all = entries(root).map((entry) => ({ ...entry, words: words(entry), element: show(root, entry) }));
  const known = (root.tags ?? []).map((tag) => tag.name);
  const tags = [...new Set([...known, ...all.flatMap((entry) => entry.operation.tags ?? [])])];
  const sections = tags.map((name) => {
    const own = all.filter((entry) => entry.operation.tags?.[0] === name);
    const about = (root.tags ?? []).find((tag) => tag.name === name)?.description;
    const link = ({ method, path, operation }) => h("li", {}, h("a", { href: `#${operation.operationId}`, title: `${method.toUpperCase()} ${path}` }, operation.summary));
    return {
      own,
      section: h("section", { class: "tag" }, h("h2", {}, name), about ? h("p", {}, ...prose(about)) : null, own.map((entry) => entry.element)),
      links: h("div", {}, h("h2", {}, name), h("ul", {}, own.map(link))),
    };
  }).filter(({ own }) => own.length > 0);
  by("list").replaceChildren(...sections.map(({ section }) => section));
  by("contents").replaceChildren(...sections.map(({ links }) => links));
  const filter = () => {
    const wanted = by("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const entry of all) entry.element.hidden = !wanted.every((word) => entry.words.includes(word));
    for (const { own, section } of sections) section.hidden = own.every((entry) => entry.element.hidden);
    const left = all.filter((entry) => !entry.element.hidden).length;
    by("about").hidden = wanted.length > 0;
    by("found").textContent = wanted.length > 0 ? `${left} of ${all.length} operations` : "";
  };
  by("filter").addEventListener("input", filter);
  filter();
}

function about(root) {
  by("version").textContent = root.info.version;
  by("licence").textContent = root.info.license?.name ?? "";
  by("about").replaceChildren(...(root.info.description ?? "").split(/\n{2,}/).map((part) => h("p", {}, ...prose(part))));
}

/** Opens what the address names. */
function open() {
  const target = by(decodeURIComponent(location.hash.slice(1)));
  if (!target?.matches(".operation")) return;
  target.hidden = false;
  target.open = true;
  target.querySelector("summary").focus({ preventScroll: true });
  target.scrollIntoView();
}

function signIn() {
  const said = () => {
    by("token-said").textContent = token.get() ? "in use" : "";
  };
  by("token").addEventListener("submit", (event) => {
    event.preventDefault();
    token.set(by("token-value").value.trim());
    by("token-value").value = "";
    said();
  });
  said();
}

addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    by("filter").focus();
  } else if (event.key === "Escape" && document.activeElement === by("filter")) {
    by("filter").value = "";
    by("filter").dispatchEvent(new Event("input"));
  }
});
addEventListener("hashchange", open);

signIn();
try {
  const answer = await fetch("openapi.json", { cache: "no-store" });
  if (!answer.ok) throw new Error(`the hub answered ${answer.status}`);
  const root = await answer.json();
  about(root);
  draw(root);
  open();
} catch (error) {
  by("list").replaceChildren(h("p", { class: "bad" }, `The description could not be read: ${error.message}`));
}
