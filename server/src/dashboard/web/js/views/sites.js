// Sites and relays: what the server sent into each line by kind, how fast now, what it may carry; and who serves there.
// Touches the API for limits.

import { get, post } from "../api.js";
import { askText, notice, refused } from "../dialog.js";
import { h, keyed, show, text } from "../dom.js";
import { ago, bits, bitsFrom, bytes, byName, percent, rate } from "../format.js";
import { button, empty, line, section, stack, state, table, update as updateState } from "../parts.js";
import { may } from "../session.js";
import { store, tell } from "../store.js";
import { KINDS } from "../words.js";

export function sites() {
  const list = h("div", { class: "sites" });
  const own = h("p", { class: "job-line" });
  const none = empty("Nothing was sent into any site since the server started.");
  const relays = table("Relays", ["Relay", "Site", "State", "Last heard of", ["Free", "number"], "Images", "What to look at"]);
  const root = h("div", null, section("The server's own line", own), none, list, section("Relays", relays));
  const update = () => {
    text(own, `${rate(store.meter.rate("server"))} now · ${store.limits.server ? `limited to ${bits(store.limits.server)}` : "no limit"}`);
    const names = new Set([...store.swarm.sites.map((one) => one.site), ...Object.keys(store.limits.sites)]);
    const all = [...names].sort(byName).map((site) => store.swarm.sites.find((one) => one.site === site) ?? { site, sent: {}, received: 0, measured: null });
    show(none, all.length === 0);
    keyed(list, all, (one) => one.site, siteCard, (node, one) => node.set(one));
    keyed(relays.body, store.relays, (one) => one.name, relayRow, (node, one) => node.set(one));
  };
  const actions = may("admin") ? [button("Limit the server…", () => limit(null))] : [];
  return { title: "Sites & relays", root, actions, update };
}

async function limit(site) {
  const typed = await askText({ title: site ? `What may the line of ${site} carry?` : "What may the server's own line carry?", label: "Bits a second", hint: "20M, 1.5G; empty for no limit", act: "Set", required: false });
  if (typed === null) return;
  const bitsPerSecond = typed ? bitsFrom(typed) : null;
  if (typed && !bitsPerSecond) return void notice(`\`${typed}\` is no rate`, "failed", "write 20M or 1.5G");
  try {
    store.limits = await post("/swarm/limits", { site, rate: bitsPerSecond });
    store.limits = await get("/swarm/limits");
    notice(bitsPerSecond ? `limited to ${bits(bitsPerSecond)}` : "no limit");
    tell();
  } catch (error) {
    refused(error);
  }
}

function siteCard(first) {
  const spark = line(160, 36);
  const kinds = stack();
  const [now, said] = [h("p", { class: "job-line" }), h("p", { class: "hint" })];
  const node = h("section", { class: "card", "aria-label": `Site ${first.site}` }, h("header", null, h("h3", null, first.site || "unknown"), may("admin") ? button("Limit…", () => limit(first.site), "plain") : null), now, spark, kinds, said);
  node.set = (one) => {
    const most = store.limits.sites[one.site] ?? one.limit;
    const parts = Object.entries(KINDS).map(([key, name]) => ({ name, value: one.sent[key] ?? 0, label: bytes(one.sent[key] ?? 0) }));
    text(now, `${rate(store.meter.rate(`site ${one.site}`))} now · ${most ? `limit ${bits(most)}` : "no limit"}${one.measured ? ` · carried ${bits(one.measured)}` : ""}`);
    spark.set(store.meter.line(`site ${one.site}`));
    kinds.set(parts);
    text(said, `${parts.filter((it) => it.value).map((it) => `${it.name} ${it.label}`).join(" · ")}${one.received ? ` · received ${bytes(one.received)}` : ""}`);
  };
  return node;
}

function relayRow(first) {
  const sign = state(first.state);
  const cells = [h("td"), h("td", { class: "number" }), h("td"), h("td", { class: "bad" })];
  const node = h("tr", null, h("th", { scope: "row" }, first.name), h("td", null, first.site), h("td", null, sign), cells);
  node.set = (one) => {
    updateState(sign, one.state);
    text(cells[0], ago(one.last_seen));
    text(cells[1], one.free_bytes === null ? "–" : bytes(one.free_bytes));
    text(cells[2], one.images.map((it) => `${it.name} ${percent(it.held, it.total)} %`).join(", "));
    text(cells[3], [...one.warnings, ...one.images.map((it) => it.trouble).filter(Boolean)].join("; "));
  };
  return node;
}
