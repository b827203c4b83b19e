// The log as it comes, with filters. Touches the API for what was before the page was opened.

import { lines } from "../api.js";
import { h, text } from "../dom.js";
import { refused } from "../dialog.js";
import { store } from "../store.js";
import { STEPS } from "../words.js";
import { drawLog } from "./machine.js";

// How far back the log is read at first, in milliseconds, and how many lines are shown.
const BACK = 3600_000;
const SHOWN = 300;

export function log() {
  const search = h("input", { type: "search", placeholder: "Machine or words…  /", "aria-label": "Search the log" });
  const step = h("select", { "aria-label": "Step" }, h("option", { value: "" }, "every step"), Object.keys(STEPS).map((name) => h("option", { value: name }, name)));
  const failed = h("input", { type: "checkbox", id: "only-failed" });
  const said = h("span", { class: "hint", role: "status" });
  const list = h("ol", { class: "log" });
  const before = new Map();
  const running = new AbortController();
  lines(`/logs?since=${encodeURIComponent(new Date(Date.now() - BACK).toISOString())}`, (event) => {
    before.set(event.id, event);
    if (before.size > 3000) before.delete(before.keys().next().value);
  }, { signal: running.signal }).then(() => update(), refused);
  const update = () => {
    for (const event of store.events) before.set(event.id, event);
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (event) => (!step.value || event.step === step.value) && (!failed.checked || event.kind === "failed")
      && words.every((word) => `${event.name} ${event.deployment ?? ""} ${event.step} ${event.text ?? ""} ${event.cause ?? ""}`.toLowerCase().includes(word));
    const found = [...before.values()].filter(fits);
    text(said, `${found.length} events of the last hour${found.length > SHOWN ? `, the newest ${SHOWN} are shown` : ""}`);
    drawLog(list, found.slice(-SHOWN).reverse(), true);
  };
  for (const node of [search, step, failed]) node.addEventListener("input", update);
  return { title: "Log", root: h("div", null, h("div", { class: "filters" }, search, step, h("label", { class: "check", for: "only-failed" }, failed, "only failures"), said), h("section", { class: "card", "aria-label": "Events, newest first" }, list)), update, close: () => running.abort() };
}
