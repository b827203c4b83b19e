// The profiles: what each says; added as a TOML text, whose mistakes are shown with their places, and removed. What one
// says goes into orders from the page of a new order. Touches the API.

import { get, part, post, remove } from "../api.js";
import { ask, notice, refused } from "../dialog.js";
import { h, replace, text } from "../dom.js";
import { ago, bytes, when } from "../format.js";
import { button, empty, facts, field, section, table } from "../parts.js";
import { may } from "../session.js";
import { whole } from "../store.js";
import { wishWords } from "../words.js";

export function profiles() {
  // Its hooks run as root wherever somebody orders by it: a token for some machines may not add it.
  const rules = may("operator") && whole();
  const list = table("Profiles", ["Profile", "Image", "Machines", "Hooks", "Added", ""]);
  const none = empty("There is no profile yet.", rules ? null : "an operator can add one");
  const more = h("div", { "aria-live": "polite" });
  const load = async () => {
    const all = await get("/profiles").catch(refused) ?? [];
    none.hidden = all.length > 0;
    list.hidden = !all.length;
    replace(list.body, all.map((one) => h("tr", null,
      h("th", { scope: "row" }, button(one.name, () => look(one.name), "plain link")), h("td", null, one.image), h("td", { class: "mono" }, one.machines || "–"), h("td", null, one.hooks.map((hook) => hook.name).join(", ") || "–"), h("td", null, `${ago(one.added)} by ${one.by}`),
      h("td", null, may("operator") ? button("Order…", () => (location.hash = `#/order?profile=${part(one.name)}`)) : null, rules ? button("Remove", () => drop(one.name), "danger quiet") : null))));
  };
  const look = (name) => get(`/profiles/${part(name)}`).then((it) => replace(more, section(it.name, facts([
    ["Image", it.image], ["Machines", it.machines || "those that an order names"], ["Each", wishWords(it)], ["Added", `${when(it.added)} by ${it.by}`],
    ["Hooks", it.hooks.map((hook) => `${hook.name}, ${bytes(hook.bytes)}`).join("; ")]]))), refused);
  const drop = async (name) => {
    if (!(await ask({ title: `Remove ${name}?`, body: h("p", null, "What was ordered by it stays as it was ordered."), act: "Remove", danger: true }))) return;
    await remove(`/profiles/${part(name)}`).then(() => notice(`${name} is removed`), refused);
    replace(more);
    load();
  };
  load();
  return { title: "Profiles", root: h("div", null, none, list, more, rules ? adding(load) : null) };
}

// The form by which one is added. A first look finds mistakes; without any it is kept, as at the command line.
function adding(added) {
  const name = h("input", { type: "text", id: "p-name", required: true, autocomplete: "off", spellcheck: "false" });
  const toml = h("textarea", { id: "p-text", class: "mono", rows: 10, required: true, spellcheck: "false", "aria-describedby": "p-wrong" });
  const files = h("input", { type: "file", id: "p-files", multiple: true });
  const again = h("input", { type: "checkbox", id: "p-replace" });
  const wrong = h("ul");
  const form = h("form", { class: "form" }, field(name, "Name"),
    field(files, "Files", "the TOML file itself, and those that it names: user-data, keys, hooks"),
    h("div", { class: "field wide" }, field(toml, "TOML text"), h("div", { id: "p-wrong", role: "status" }, wrong)),
    h("label", { class: "check", for: "p-replace" }, again, "May take the place of one with this name"), h("button", { type: "submit", class: "primary" }, "Check and keep"));
  // The text may name a file by a path; of that the browser knows the last part.
  const named = async () => {
    const names = [...toml.value.matchAll(/(["'])([^"'\n]+)\1/g)].map(([, , name]) => name);
    const held = [...files.files].filter((file) => !file.name.endsWith(".toml")).map(async (file) => {
      const holds = await contents(file);
      return names.filter((name) => name.split("/").at(-1) === file.name).map((name) => [name, { holds }]);
    });
    return Object.fromEntries((await Promise.all(held)).flat());
  };
  files.addEventListener("change", async () => {
    const file = [...files.files].find((one) => one.name.endsWith(".toml"));
    if (!file) return;
    toml.value = await file.text();
    name.value ||= file.name.replace(/\.toml$/, "");
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const sent = { name: name.value.trim(), text: toml.value, files: await named(), replace: again.checked };
      const { mistakes } = await post("/profiles", { ...sent, dry_run: true });
      replace(wrong, mistakes.map((one) => mistake(one, toml)));
      if (mistakes.some((one) => one.severity === "error")) return void wrong.querySelector("button")?.focus();
      const { profile } = await post("/profiles", sent);
      notice(`${profile.name} is kept`);
      added();
    } catch (error) {
      refused(error);
    }
  });
  return section("Add a profile", form);
}

// A file's contents: as text, or as base64 where it is none.
async function contents(file) {
  const held = new Uint8Array(await file.arrayBuffer());
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(held);
  } catch {
    return { base64: btoa(Array.from(held, (one) => String.fromCharCode(one)).join("")) };
  }
}

// A mistake with its place, which leads there.
function mistake(one, toml) {
  const said = `${one.severity}: ${one.text}${one.hint ? ` – ${one.hint}` : ""}`;
  const go = () => {
    const before = toml.value.split("\n").slice(0, one.line - 1).reduce((sum, line) => sum + line.length + 1, 0);
    const at = before + [...toml.value.slice(before)].slice(0, (one.column ?? 1) - 1).join("").length;
    toml.focus();
    toml.setSelectionRange(at, at);
  };
  const place = one.line ? button(`${one.line}:${one.column ?? 1}`, go, "plain link mono") : null;
  return h("li", { class: one.severity === "error" ? "bad" : "hint" }, place, " ", text(h("span"), said));
}
