// The keyboard: single keys and pairs such as `g m`. Not while somebody types or a dialog is open. Owns what the keys
// mean; touches the page.

import { h } from "./dom.js";
import { ask } from "./dialog.js";

const GO = {
  o: ["#/", "overview"],
  m: ["#/machines", "machines"],
  d: ["#/deployments", "deployments"],
  n: ["#/order", "new order"],
  p: ["#/profiles", "profiles"],
  i: ["#/images", "images"],
  s: ["#/sites", "sites and relays"],
  k: ["#/kits", "boot kits"],
  l: ["#/log", "log"],
  f: ["#/machines?state=failed", "failed machines"],
  ",": ["#/settings", "settings"],
};

let waiting = false;
let timer = null;

// Listens from now on.
export function listen() {
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key === "Escape" && typing) return typing.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return undefined;
    if (waiting) return go(event);
    if (event.key === "g") return wait();
    if (event.key === "/") return search(event);
    if (event.key === "?") return help(event);
    return undefined;
  });
}

function wait() {
  waiting = true;
  clearTimeout(timer);
  timer = setTimeout(() => (waiting = false), 1500);
}

function go(event) {
  waiting = false;
  const to = GO[event.key];
  if (!to) return;
  event.preventDefault();
  location.hash = to[0];
}

function search(event) {
  const field = document.querySelector("main input[type=search]") ?? document.querySelector("#jump");
  if (!field) return;
  event.preventDefault();
  field.focus();
  field.select();
}

function help(event) {
  event?.preventDefault();
  const row = (keys, what) => h("tr", null, h("td", null, keys.map((key) => h("kbd", null, key))), h("td", null, what));
  const rows = Object.entries(GO).map(([key, [, what]]) => row(["g", key], `go to ${what}`));
  const more = [
    row(["/"], "search"),
    row(["j", "k"], "next or previous row of a list"),
    row(["x"], "select the row"),
    row(["Enter"], "open the row"),
    row(["Esc"], "leave a field, close a dialog"),
    row(["?"], "this list"),
  ];
  ask({ title: "Keys", body: h("table", { class: "keys" }, h("tbody", null, more, rows)), cancel: "Close" });
}

export { help };
