// The page on which a token is entered. Touches the session.

import { h } from "../dom.js";
import { signIn } from "../session.js";

// The page; `why` says why somebody was sent here, and `open` is called once a token was entered.
export function signInPage(why, open) {
  const field = h("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "token-hint" });
  const remember = h("input", { type: "checkbox", id: "remember" });
  const warning = h("p", { class: "hint warning", hidden: true }, "Whoever uses this browser then has your token. Not on a shared computer.");
  remember.addEventListener("change", () => (warning.hidden = !remember.checked));
  const form = h("form", { class: "card" },
    h("div", { class: "brand" }, h("img", { src: "icon.svg", alt: "", width: 32, height: 32 }), h("h1", null, "swarmboot")),
    why ? h("p", { class: "banner failed", role: "alert" }, why) : null,
    h("label", { for: "token" }, "Token"),
    field,
    h("p", { class: "hint", id: "token-hint" }, "An admin makes one on the server: ", h("code", null, "swarmboot token create NAME --role viewer")),
    h("label", { class: "check", for: "remember" }, remember, "Remember in this browser"),
    warning,
    h("button", { type: "submit", class: "primary" }, "Sign in"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    signIn(field.value.trim(), remember.checked);
    open();
  });
  return h("main", { class: "signin" }, form);
}
