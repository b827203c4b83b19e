// A machine's way as a drawn band: a row for each step, a bar for each try, from the first packet to the call home. A
// list of the same stands in the drawing for readers. Touches the page.

import { attribute, h, keyed, replace, svg, text } from "./dom.js";
import { clock, span } from "./format.js";
import { STEPS } from "./words.js";

const WIDTH = 1000;

// The tries of each step, made of events in their order: `{step, attempt, from, to, ended, text}`.
export function tries(events, now = Date.now()) {
  const all = [];
  const open = new Map();
  for (const event of events) {
    const at = Date.parse(event.at);
    const key = `${event.attempt ?? 0} ${event.step}`;
    let one = open.get(key);
    if (!one || event.kind === "started") {
      if (one && one.ended === "open") Object.assign(one, { to: at, ended: "left" });
      one = { step: event.step, attempt: event.attempt ?? null, from: at, to: null, ended: "open", text: "" };
      open.set(key, one);
      all.push(one);
    }
    if (event.kind === "done" || event.kind === "failed") {
      Object.assign(one, { to: at, ended: event.kind, text: event.text ?? event.cause ?? "", last: event.last });
      open.delete(key);
    } else if (event.kind === "note") {
      one.text = event.text;
      one.seen = at;
    }
  }
  // Steps that only say that something happened have no end of their own: they lasted until the next thing did.
  all.forEach((one, at) => {
    if (one.to !== null) return;
    const next = all.slice(at + 1).find((later) => later.from > one.from);
    if (next) Object.assign(one, { to: next.from, ended: one.ended === "open" ? "done" : one.ended });
    else Object.assign(one, { to: one.step === "confirm" ? one.from : now });
  });
  return all;
}

// The band; `set(events)` draws it.
export function timeline() {
  const rows = h("ol", { class: "timeline", "aria-label": "Steps, with how long each took" });
  const said = h("p", { class: "hint" });
  const node = h("div", null, rows, said);
  node.set = (events) => {
    const all = tries(events);
    if (!all.length) {
      replace(rows);
      text(said, "Nothing was seen of it yet.");
      return;
    }
    const [begin, end] = [Math.min(...all.map((one) => one.from)), Math.max(...all.map((one) => one.to))];
    const by = new Map(Object.keys(STEPS).map((step) => [step, []]));
    for (const one of all) (by.get(one.step) ?? by.set(one.step, []).get(one.step)).push(one);
    const place = scale(all);
    keyed(rows, [...by].filter(([, list]) => list.length), ([step]) => step, row, (one, [, list]) => one.set(list, place));
    const failed = all.filter((one) => one.ended === "failed").length;
    text(said, `${clock(begin)} to ${clock(end)}, ${span(end - begin)} in all${failed ? `, ${failed} failed ${failed === 1 ? "try" : "tries"}` : ""}. Gaps of more than a minute in which nothing was heard are drawn short.`);
  };
  return node;
}

// Where a time stands in the band. Nights between two boots would leave the minutes of a deployment no room, so a gap in
// which no try ran is drawn as a twentieth of the rest.
function scale(all) {
  const edges = [...all].sort((one, other) => one.from - other.from);
  const busy = [];
  for (const one of edges) {
    const last = busy.at(-1);
    if (last && one.from - last.to < 60_000) last.to = Math.max(last.to, one.to);
    else busy.push({ from: one.from, to: Math.max(one.to, one.from + 1) });
  }
  const sum = busy.reduce((total, part) => total + part.to - part.from, 0);
  const gap = busy.length > 1 ? sum / Math.max(20, busy.length * 2) : 0;
  const whole = sum + gap * (busy.length - 1);
  return (time) => {
    let at = 0;
    for (const part of busy) {
      if (time <= part.to) return ((at + Math.max(0, time - part.from)) / whole) * WIDTH;
      at += part.to - part.from + gap;
    }
    return WIDTH;
  };
}

function row([step]) {
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} 16`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const took = h("span", { class: "took" });
  const why = h("span", { class: "why" });
  const node = h("li", null, h("span", { class: "step", title: STEPS[step] ?? "" }, step), drawing, took, why);
  node.set = (list, place) => {
    keyed(drawing, list.map((one, at) => ({ ...one, at })), (one) => `${one.at}`, () => svg("g", null, svg("title"), svg("rect", { y: 2, height: 12, rx: 2 })), (bar, one) => {
      const [left, right] = [place(one.from), place(one.to)];
      attribute(bar, "data-ended", one.ended);
      attribute(bar.lastChild, "x", left.toFixed(1));
      attribute(bar.lastChild, "width", Math.max(4, right - left).toFixed(1));
      text(bar.firstChild, `${step}${one.attempt ? `, attempt ${one.attempt}` : ""}: ${one.ended}, ${span(one.to - one.from)}`);
    });
    const newest = list.at(-1);
    const failed = list.filter((one) => one.ended === "failed");
    node.dataset.ended = newest.ended;
    text(took, `${span(newest.to - newest.from)}${list.length > 1 ? ` · ${list.length} tries` : ""}`);
    text(why, newest.ended === "failed" ? newest.text : failed.length ? `before: ${failed.at(-1).text}` : newest.text);
    why.title = why.textContent;
  };
  return node;
}
