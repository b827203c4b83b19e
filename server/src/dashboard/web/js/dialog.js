// Dialogs and notices. Owns the one way in which anything is confirmed: what a dry run showed comes first, the number of
// machines is typed from ten on, and the button says what it does. Touches the page.

import { h, replace } from "./dom.js";
import { count } from "./format.js";

// From this number of machines on, the person also types the number, as at the command line.
export const ASK_TWICE_FROM = 10;

// Asks; resolves to true when it is confirmed. `typed` is a text that has to be typed first, `danger` colours the
// button, `act` is what the button does, and without it there is only a way out.
export function ask({ title, body, act, cancel = "Cancel", danger = false, typed = null, wide = false }) {
  return new Promise((done) => {
    const before = document.activeElement;
    const button = act ? h("button", { type: "submit", class: danger ? "danger" : "primary" }, act) : null;
    const field = typed ? h("input", { type: "text", autocomplete: "off", inputmode: "numeric", id: "typed" }) : null;
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: "dialog-title" }, title),
      h("div", { class: "dialog-body" }, body),
      field ? h("label", { class: "typed", for: "typed" }, "Type ", h("strong", null, typed), " to confirm", field) : null,
      h("div", { class: "dialog-actions" }, h("button", { type: "button", on: { click: () => box.close("no") } }, cancel), button),
    );
    const box = h("dialog", { class: wide ? "wide" : null, "aria-labelledby": "dialog-title" }, form);
    if (field) {
      button.disabled = true;
      field.addEventListener("input", () => (button.disabled = field.value.trim() !== typed));
    }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!button?.disabled) box.close("yes");
    });
    box.addEventListener("close", () => {
      box.remove();
      before?.focus?.();
      done(box.returnValue === "yes");
    });
    document.body.append(box);
    box.showModal();
    if (field) field.focus();
    else form.querySelector(".dialog-body input, .dialog-body textarea, .dialog-body select")?.focus();
  });
}

// Confirms what a dry run showed for some machines. `shown` are lines with `name` and `text`, and `refused` on those
// that nothing would happen to.
export function confirmShown({ title, shown, act, danger }) {
  const taken = shown.filter((line) => !line.refused);
  return ask({
    title,
    wide: true,
    danger,
    act: taken.length ? act : null,
    typed: taken.length >= ASK_TWICE_FROM ? String(taken.length) : null,
    body: [
      h("p", null, `A dry run says what would happen to ${count(taken.length, "machine")}:`),
      h("div", { class: "scroll short", tabindex: "0" }, h(
        "table",
        null,
        h("thead", null, h("tr", null, h("th", { scope: "col" }, "Machine"), h("th", { scope: "col" }, "What happens"))),
        h("tbody", null, shown.slice(0, 500).map((line) => h("tr", { class: line.refused ? "refused" : null }, h("th", { scope: "row" }, line.name), h("td", null, line.refused ?? line.text)))),
      )),
    ],
  });
}

// Asks for one line of text; resolves to null when it is left.
export async function askText({ title, label, hint, value = "", act, required = true }) {
  const field = h("input", { type: "text", id: "asked", value, autocomplete: "off", required });
  const body = [h("label", { for: "asked" }, label), field, hint ? h("p", { class: "hint" }, hint) : null];
  return (await ask({ title, body, act })) ? field.value.trim() : null;
}

let box = null;

// Says something in a corner of the page, and to readers; a failure stays until it is closed.
export function notice(text, kind = "done", more = null) {
  box ??= document.body.appendChild(h("div", { class: "notices", role: "status", "aria-live": "polite" }));
  const one = h("div", { class: `notice ${kind}` });
  const close = h("button", { type: "button", class: "plain", "aria-label": "Close this notice", on: { click: () => one.remove() } }, "×");
  replace(one, h("div", null, h("strong", null, text), more ? h("p", null, more) : null), close);
  box.append(one);
  if (kind === "done") setTimeout(() => one.remove(), 6000);
  while (box.children.length > 4) box.firstChild.remove();
}

// Says why something was refused.
export function refused(error) {
  if (error.name === "AbortError") return;
  notice(error.message, "failed", [error.why, error.hint].filter(Boolean).join(" – ") || null);
}
