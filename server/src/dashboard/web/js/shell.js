// What surrounds each view: the way to the others, who is signed in, whether the page is live, and a freeze. Owns the
// page's frame; touches the state and the session.

import { h, replace, show, text } from "./dom.js";
import { clock } from "./format.js";
import { help } from "./keys.js";
import { may, who } from "./session.js";
import { store } from "./store.js";
import { nextTheme, theme } from "./theme.js";

const PLACES = [
  ["overview", "#/", "Overview"],
  ["machines", "#/machines", "Machines"],
  ["deployments", "#/deployments", "Deployments"],
  ["order", "#/order", "New order", "operator"],
  ["profiles", "#/profiles", "Profiles"],
  ["images", "#/images", "Images"],
  ["kits", "#/kits", "Boot kits"],
  ["sites", "#/sites", "Sites & relays"],
  ["log", "#/log", "Log"],
  ["tokens", "#/tokens", "Tokens", "admin"],
  ["settings", "#/settings", "Settings"],
];
const CONNECTION = {
  loading: "loading…",
  live: "live",
  waiting: "connection lost, trying again",
  refused: "not allowed to follow",
};

export class Shell {
  constructor(leave) {
    this.links = new Map();
    const items = PLACES.filter(([, , , role]) => !role || may(role)).map(([name, href, label]) => {
      const count = h("span", { class: "count", hidden: true });
      const link = h("a", { href, data: { place: name } }, h("span", null, label), count);
      this.links.set(name, { link, count });
      return h("li", null, link);
    });
    this.heading = h("h1", { tabindex: "-1" });
    this.actions = h("div", { class: "actions" });
    this.main = h("main", { id: "main" });
    this.connection = h("span", { class: "connection", role: "status" });
    this.frozen = h("p", { class: "banner frozen", role: "status", hidden: true });
    this.alarm = h("p", { class: "unseen", role: "alert" });
    this.failed = null;
    const button = (label, act, name) => h("button", { type: "button", class: "plain", title: name, "aria-label": name, on: { click: act } }, label);
    const drawn = h("span");
    const shade = () => text(drawn, { system: "◐", dark: "●", light: "○" }[theme()]);
    shade();
    const menu = button("☰", () => document.body.classList.toggle("open"), "Menu");
    menu.classList.add("menu");
    this.nodes = [
      h("a", { class: "skip", href: "#main", on: { click: (event) => { event.preventDefault(); this.heading.focus(); } } }, "To the content"),
      h("nav", { class: "side", "aria-label": "Places" },
        h("a", { class: "brand", href: "#/" }, h("img", { src: "icon.svg", alt: "", width: 22, height: 22 }), "swarmboot"),
        h("ul", null, items),
        h("div", { class: "who" },
          h("div", null, h("strong", null, who.who), h("span", { class: "role" }, who.role)),
          scope(),
          h("div", { class: "tools" },
            button(drawn, () => { nextTheme(); shade(); }, "Dark, light, or as the system"),
            button("?", () => help(), "Keys"),
            h("button", { type: "button", class: "plain", on: { click: leave } }, "Sign out")))),
      h("div", { class: "page" },
        h("header", { class: "top" }, menu, this.heading, this.connection, this.actions),
        this.frozen, this.alarm, this.main),
    ];
  }

  // Shows a view.
  show(name, view) {
    document.body.classList.remove("open");
    for (const [place, { link }] of this.links) {
      if (place === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    this.view = view;
    replace(this.actions, view.actions ?? []);
    replace(this.main, view.root);
    this.main.scrollTop = 0;
    if (document.activeElement === document.body || this.links.get(name)?.link === document.activeElement) this.heading.focus({ preventScroll: true });
  }

  update() {
    // A view may learn its title only from what is read after it was opened.
    text(this.heading, this.view.title);
    document.title = `${this.view.title} – swarmboot`;
    text(this.connection, CONNECTION[store.connection]);
    this.connection.dataset.is = store.connection;
    const frozen = store.status?.frozen;
    show(this.frozen, Boolean(frozen));
    if (frozen) text(this.frozen, `Frozen since ${clock(frozen.since)}: nothing new is started.${frozen.reason ? ` ${frozen.reason}` : ""}`);
    let failed = 0;
    for (const machine of store.machines.values()) if (machine.state === "failed") failed += 1;
    const { count } = this.links.get("machines");
    show(count, failed > 0);
    text(count, failed);
    count.title = `${failed} failed`;
    if (this.failed !== null && failed > this.failed) text(this.alarm, `${failed - this.failed} more failed, ${failed} in all`);
    if (store.loaded) this.failed = failed;
  }
}

function scope() {
  const parts = [...who.scope.sites.map((site) => `site ${site}`), ...who.scope.labels];
  return parts.length ? h("p", { class: "hint" }, parts.join(", ")) : null;
}
