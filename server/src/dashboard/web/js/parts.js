// Parts that several views have: a state with its sign, bars, lines, tables. A colour is never the only sign: each state
// has a shape and its word. Touches the page.

import { attribute, h, keyed, svg, text } from "./dom.js";
import { bytes, percent } from "./format.js";

// A state: its shape, and its word.
export function state(name) {
  return update(h("span", { class: "state" }, h("i", { "aria-hidden": "true" }), h("span")), name);
}

// The same node for another state.
export function update(node, name) {
  if (node.dataset.state !== name) node.dataset.state = name;
  text(node.lastChild, name);
  return node;
}

// A bar of parts: `[{name, value, label}]`, drawn in that order. Its text is what readers hear.
export function stack(className = "") {
  const bar = h("div", { class: `stack ${className}`, role: "img" });
  bar.set = (parts, total, label) => {
    const all = total ?? parts.reduce((sum, one) => sum + one.value, 0);
    const words = parts.filter((one) => one.value).map((one) => `${one.label ?? one.value} ${one.name}`).join(", ");
    attribute(bar, "aria-label", label ?? (words || "nothing"));
    keyed(bar, parts.filter((one) => one.value > 0), (one) => one.name, (one) => h("div", { data: { part: one.name } }), (node, one) => {
      node.style.setProperty("flex-basis", `${all > 0 ? (one.value * 100) / all : 0}%`);
      node.title = `${one.name}: ${one.label ?? one.value}`;
    });
    return bar;
  };
  return bar;
}

// How far something is, with its percent; `state` colours it.
export function progress() {
  const fill = h("div");
  const label = h("span");
  const bar = h("div", { class: "progress", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 }, fill);
  const node = h("div", { class: "progressed" }, bar, label);
  node.set = (done, total, name, kind = "running") => {
    const of = percent(done, total);
    fill.style.setProperty("width", `${of}%`);
    node.dataset.part = kind;
    attribute(bar, "aria-valuenow", of);
    attribute(bar, "aria-label", name);
    text(label, `${of} %`);
    return node;
  };
  return node;
}

// Where bytes came from, as parts of a bar.
export function sourceParts(sources) {
  return [
    { name: "server", value: sources.server, label: bytes(sources.server) },
    { name: "peers", value: sources.peers, label: bytes(sources.peers) },
    { name: "on disk", value: sources.disk, label: bytes(sources.disk) },
    { name: "not sent", value: sources.unsent, label: bytes(sources.unsent) },
  ];
}

// The sum of some sources.
export function sumSources(all) {
  const sum = { server: 0, peers: 0, disk: 0, unsent: 0, uploaded: 0 };
  for (const one of all) for (const name of Object.keys(sum)) sum[name] += one[name] ?? 0;
  return sum;
}

// A line of the last rates, the highest at the top.
export function line(width = 160, height = 32) {
  const path = svg("path", { class: "line" });
  const area = svg("path", { class: "area" });
  const node = svg("svg", { class: "sparkline", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, area, path);
  node.set = (values) => {
    const most = Math.max(...values, 1);
    const step = width / Math.max(values.length - 1, 1);
    const points = values.map((value, at) => `${(at * step).toFixed(1)} ${(height - 2 - (value / most) * (height - 4)).toFixed(1)}`);
    const drawn = points.length > 1 ? `M${points.join("L")}` : "";
    attribute(path, "d", drawn);
    attribute(area, "d", drawn && `${drawn}L${width} ${height}L0 ${height}Z`);
  };
  return node;
}

// A number with what it is.
export function figure(label, more = null) {
  const value = h("strong");
  const note = h("span", { class: "hint" }, more);
  const node = h("div", { class: "figure" }, h("span", { class: "label" }, label), value, note);
  node.set = (shown, said = null) => {
    text(value, shown);
    if (said !== null) text(note, said);
    return node;
  };
  return node;
}

// A section with its heading.
export function section(title, ...children) {
  const id = `s-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return h("section", { class: "card", "aria-labelledby": id }, h("h2", { id }, title), children);
}

// A table with its header; `columns` are names, or `[name, class]`.
export function table(caption, columns, body = h("tbody")) {
  const head = columns.map((one) => {
    const [name, className] = Array.isArray(one) ? one : [one, null];
    return h("th", { scope: "col", class: className }, name);
  });
  const node = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", null, h("caption", { class: "unseen" }, caption), h("thead", null, h("tr", null, head)), body));
  node.body = body;
  return node;
}

// What is shown where there is nothing, and what to do about it.
export function empty(what, hint = null) {
  return h("div", { class: "empty" }, h("p", null, what), hint ? h("p", { class: "hint" }, hint) : null);
}

// Names and values.
export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
}

// A link to a machine.
export function machineLink(id, name) {
  return h("a", { href: `#/machines/${encodeURIComponent(id)}`, class: "name" }, name);
}

// A control with its label, and a hint below it.
export function field(node, label, hint = null, more = null) {
  return h("div", { class: "field" }, h("label", { for: node.id }, label), node, hint ? h("p", { class: "hint" }, hint) : null, more);
}

// A button.
export function button(label, act, kind = "") {
  return h("button", { type: "button", class: kind, on: { click: act } }, label);
}
