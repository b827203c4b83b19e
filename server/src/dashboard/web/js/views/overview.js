// The wall: what needs a person first, then what runs, then everything there is by state and site. Touches the state.

import { attribute, h, keyed, show, text } from "../dom.js";
import { ago, byName, count, rate } from "../format.js";
import { figure, line, section, stack, state } from "../parts.js";
import { isLive, store } from "../store.js";
import { countBy, summary } from "../summary.js";
import { MACHINE_STATES, trouble } from "../words.js";
import { tiles } from "../tiles.js";

// How many causes and deployments the wall shows; the rest is counted.
const CAUSES_SHOWN = 8;
const LIVE_SHOWN = 12;

export function overview() {
  const warnings = h("ul", { class: "banner warning", "aria-label": "Warnings of the server" });
  const failed = h("ul", { class: "causes" });
  const failedBox = section("Needs you", failed);
  failedBox.classList.add("needs");
  const total = figure("Machines");
  const running = figure("Transferring");
  const out = figure("Out of the server");
  const states = stack("tall");
  const legend = h("ul", { class: "legend" });
  const spark = line(240, 40);
  const figures = h("section", { class: "figures", "aria-label": "In numbers" }, total, running, out, spark);
  const live = h("div", { class: "lives" });
  const liveBox = h("section", { "aria-labelledby": "live-h" }, h("h2", { id: "live-h" }, "Live deployments"), live);
  const idle = h("p", { class: "hint" }, "Nothing is being deployed.");
  liveBox.append(idle);
  const sites = h("div", { class: "sites" });
  const root = h("div", { class: "overview" }, warnings, failedBox, figures,
    h("section", { class: "card", "aria-labelledby": "by-state" }, h("h2", { id: "by-state" }, "Machines by state"), states, legend),
    liveBox, h("section", { "aria-labelledby": "by-site" }, h("h2", { id: "by-site" }, "Machines by site"), sites));

  const update = () => {
    const machines = [...store.machines.values()];
    keyed(warnings, store.status?.warnings ?? [], (one) => one, (one) => h("li", null, one));
    show(warnings, Boolean(store.status?.warnings?.length));
    drawFailed(failed, failedBox, machines);
    const by = countBy(machines, (machine) => machine.state);
    const transferring = machines.filter((machine) => machine.job?.state === "running").length;
    total.set(machines.length.toLocaleString("en"), `${by.get("deployed") ?? 0} deployed`);
    running.set(transferring.toLocaleString("en"), transferring ? "jobs that run" : "no job runs");
    out.set(rate(store.meter.rate("server")), "now, to all sites");
    spark.set(store.meter.line("server"));
    drawStates(states, legend, by, machines.length);
    const ordered = [...store.deployments.values()].filter(isLive).sort((one, other) => other.ordered.localeCompare(one.ordered));
    show(idle, ordered.length === 0);
    keyed(live, ordered.slice(0, LIVE_SHOWN), (one) => one.id, liveCard, (node, one) => node.set(one));
    drawSites(sites, machines);
  };
  return { title: "Overview", root, update };
}

function drawFailed(list, box, machines) {
  const causes = new Map();
  for (const machine of machines) {
    const it = trouble(machine);
    if (!it) continue;
    const key = `${machine.state === "failed"} ${it.cause}`;
    const known = causes.get(key) ?? { key, ...it, machines: [], failed: machine.state === "failed", step: machine.job?.step };
    known.machines.push(machine);
    causes.set(key, known);
  }
  const ordered = [...causes.values()].sort((one, other) => other.failed - one.failed || other.machines.length - one.machines.length);
  show(box, ordered.length > 0);
  keyed(list, ordered.slice(0, CAUSES_SHOWN), (one) => one.key, causeRow, (node, one) => node.set(one));
  attribute(list, "data-more", ordered.length > CAUSES_SHOWN ? ordered.length - CAUSES_SHOWN : null);
}

function causeRow() {
  const sign = state("failed");
  const cause = h("strong");
  const cure = h("p", { class: "cure" });
  const who = h("p", { class: "hint who-failed" });
  const node = h("li", null, sign, h("div", null, cause, cure, who));
  node.set = (one) => {
    sign.dataset.state = one.failed ? "failed" : "warning";
    text(sign.lastChild, one.failed ? count(one.machines.length, "failed", "failed") : count(one.machines.length, "machine"));
    text(cause, one.cause);
    text(cure, one.cure);
    const links = one.machines.slice(0, 6).sort((a, b) => byName(a.name, b.name));
    keyed(who, [...links, ...(one.machines.length > 6 ? [{ id: "more", more: one.machines.length - 6 }] : [])], (it) => `${it.id} ${it.more ?? it.name}`, (it) =>
      it.more
        ? h("a", { href: "#/machines?state=failed" }, `and ${it.more} more`)
        : h("a", { href: `#/machines/${it.id}` }, `${it.name} · ${it.site}`));
  };
  return node;
}

function drawStates(bar, legend, by, total) {
  const parts = MACHINE_STATES.filter((name) => by.get(name)).map((name) => ({ name, value: by.get(name) }));
  bar.set(parts, total);
  keyed(legend, parts, (one) => one.name, (one) => {
    const number = h("strong");
    const node = h("li", null, h("a", { href: `#/machines?state=${one.name}` }, state(one.name), number));
    node.number = number;
    return node;
  }, (node, one) => text(node.number, one.value.toLocaleString("en")));
}

function liveCard(first) {
  const it = summary(160, 36, "thin");
  const node = h("article", { class: "card live", "aria-label": `Deployment ${first.id}` },
    h("header", null, h("h3", null, h("a", { href: `#/deployments/${first.id}` }, first.image)), h("span", { class: "hint" }, `${first.id} · ${ago(first.ordered)}`)),
    it.jobs.bar, h("div", { class: "figures small" }, it.figures, it.spark), it.from, it.words, it.sites);
  return Object.assign(node, { set: it.set });
}

function drawSites(box, machines) {
  const by = new Map();
  for (const machine of machines) (by.get(machine.site) ?? by.set(machine.site, []).get(machine.site)).push(machine);
  const all = [...by].sort(([one], [other]) => byName(one, other));
  keyed(box, all, ([site]) => site, ([site]) => {
    const words = h("span", { class: "hint" });
    const map = tiles();
    const node = h("section", { class: "card site", "aria-label": `Site ${site || "unknown"}` },
      h("header", null, h("h3", null, h("a", { href: `#/machines?site=${encodeURIComponent(site)}` }, site || "unknown")), words), map);
    node.set = (list) => {
      const counts = countBy(list, (machine) => machine.state);
      text(words, `${list.length} · ${MACHINE_STATES.filter((name) => counts.get(name)).map((name) => `${counts.get(name)} ${name}`).join(", ")}`);
      map.set(list);
    };
    return node;
  }, (node, [, list]) => node.set(list));
}
