// How a swarm fills, on one canvas: a row for each machine, by site, with the chunks that it has where they stand on the
// disk. A graph of two hundred machines that all know each other is a ball of wool; rows keep their place, show who lags,
// and scale. Beside it stands what each was sent by the server and by peers, and sent itself. Touches the page.

import { attribute, h, show, text, visible } from "./dom.js";
import { byName, bytes, count, percent, rate } from "./format.js";
import { colours, sized } from "./tiles.js";

// Rows are high enough for a name while there are so many at the most.
const NAMED_MOST = 40;
const NAMES = 110;
const [HIGH, LOW] = [15, 6];
const GAP = 2;
const BREAK = 18;
// The width of what is drawn for neighbouring chunks, in pixels.
const CELL = 2;

// What is known of the chunks after `answer` of `GET /swarm/{image}?since=`: whole, or what changed of `known`.
export function takeMaps(known, answer) {
  if (!answer.since) known = { nodes: new Map(), wanted: bits(answer.wanted ?? "") };
  else if (known?.mark !== answer.since) return null;
  for (const number of answer.gone ?? []) known.nodes.delete(number);
  for (const [number, { map, got = [], ...news }] of Object.entries(answer.nodes)) {
    const node = known.nodes.get(Number(number)) ?? {};
    known.nodes.set(Number(number), Object.assign(node, news));
    if (map !== undefined) node.has = bits(map);
    for (const chunk of got) node.has[chunk >> 3] |= 1 << (chunk & 7);
  }
  return Object.assign(known, { image: answer.image, mark: answer.mark, places: answer.places });
}

// The drawing; `set(swarm, maps, speed)` fills it: a swarm as the live stream tells it, the chunks as `takeMaps` has
// them or null, and a function from a job to its rates.
export function swarmMap() {
  const canvas = h("canvas", { role: "img", class: "swarm" });
  const words = h("p", { class: "hint" });
  const key = h("p", { class: "key" }, [["server", "from the server"], ["peers", "from peers"], ["uploaded", "sent to peers"]].map(([part, name]) => h("span", { data: { part } }, name)));
  const node = h("div", null, words, key, canvas);
  let rows = [];
  canvas.addEventListener("mousemove", (event) => {
    const row = rows.find((one) => event.offsetY >= one.y && event.offsetY < one.y + one.high + GAP);
    canvas.title = row ? visible(about(row)) : "";
  });
  node.set = (swarm, maps, speed) => {
    show(canvas, Boolean(swarm?.nodes.length));
    show(key, Boolean(swarm?.nodes.length));
    if (!swarm?.nodes.length) {
      text(words, "Nobody is in its swarm now.");
      return;
    }
    const whole = swarm.nodes.filter((one) => one.held >= swarm.chunks).length;
    const held = swarm.nodes.reduce((sum, one) => sum + one.held, 0);
    const said = `${count(swarm.nodes.length, "member")}, ${percent(held, swarm.chunks * swarm.nodes.length)} % of all chunks held, ${whole} complete`;
    text(words, said);
    attribute(canvas, "aria-label", said);
    rows = draw(canvas, swarm, maps?.image === swarm.image ? maps : null, speed);
  };
  return node;
}

function about({ node, more, from, speed }) {
  const parts = [`${node.held} chunks`, `from the server ${bytes(node.from_server)}`, `from peers ${bytes(node.from_peers)}`, `sent ${bytes(node.sent)}`];
  if (speed.in) parts.push(`${rate(speed.in)} in`);
  if (speed.out) parts.push(`${rate(speed.out)} out`);
  if (more?.uplink) parts.push(`uplink ${rate(more.uplink)}`);
  if (from.length) parts.push(`may fetch from ${from.slice(0, 6).join(", ")}${from.length > 6 ? ` and ${from.length - 6} more` : ""}`);
  if (!node.connected) parts.push("not connected");
  return `${node.name} (${node.site}): ${parts.join("; ")}`;
}

function draw(canvas, swarm, maps, speed) {
  const nodes = [...swarm.nodes].sort((one, other) => byName(one.site, other.site) || byName(one.name, other.name));
  const named = nodes.length <= NAMED_MOST;
  const high = named ? HIGH : LOW;
  const byKey = new Map([...(maps?.nodes.values() ?? [])].map((one) => [one.k, one]));
  const names = new Map(nodes.map((one) => [one.k, one.name]));
  let y = 0;
  let site = null;
  const sites = [];
  const rows = nodes.map((node) => {
    if (node.site !== site) {
      sites.push([node.site, y + BREAK / 2]);
      y += BREAK;
    }
    site = node.site;
    const more = byKey.get(node.k);
    const row = { y, high, node, more, from: more?.neighbours.map((at) => names.get(maps.nodes.get(at)?.k)) ?? [], speed: speed(node.job) };
    y += high + GAP;
    return row;
  });
  const width = Math.max(240, canvas.parentElement.clientWidth);
  const to = sized(canvas, width, y);
  const colour = colours(["track", "server", "peers", "uploaded", "text", "quiet"]);
  const left = named && width > 500 ? NAMES : 0;
  const map = Math.floor((width - left) * 0.72);
  const right = left + map + 12;
  const most = Math.max(1, ...nodes.map((one) => Math.max(one.sent, one.from_server + one.from_peers)));
  const long = (value) => ((width - right) * value) / most;
  to.font = "11px system-ui, sans-serif";
  to.textBaseline = "middle";
  to.fillStyle = colour.quiet;
  for (const [name, at] of sites) to.fillText(visible(name || "unknown"), 0, at, width);
  for (const { y: at, node, more } of rows) {
    const fill = (name, x, wide, top = at, tall = high) => {
      to.fillStyle = colour[name];
      to.fillRect(x, top, wide, tall);
    };
    if (left) {
      to.fillStyle = colour.text;
      to.fillText(visible(node.name), 0, at + high / 2, NAMES - 8);
    }
    fill("track", left, map);
    if (more) drawMap(fill, to, maps.wanted, more.has, maps.places, left, map);
    else fill("peers", left, swarm.chunks ? (map * Math.min(node.held, swarm.chunks)) / swarm.chunks : 0);
    const half = high / 2;
    fill("server", right, long(node.from_server), at, half - 0.5);
    fill("peers", right + long(node.from_server), long(node.from_peers), at, half - 0.5);
    fill("uploaded", right, long(node.sent), at + half + 0.5, half - 0.5);
  }
  return rows;
}

// The bytes of a map, whose lowest bit is the first chunk's.
function bits(map) {
  return Uint8Array.from(atob(map + "=".repeat((4 - (map.length % 4)) % 4)), (one) => one.charCodeAt(0));
}

// One machine's chunks: each cell as dense as the part of its chunks that is there. Chunks that nobody fetches, zeros,
// count as there. Neighbouring cells of one density are one rectangle.
function drawMap(fill, to, wanted, has, places, left, width) {
  const cells = Math.max(1, Math.min(places, Math.floor(width / CELL)));
  const wide = width / cells;
  let [begun, dense] = [0, 0];
  const end = (cell) => {
    to.globalAlpha = dense / 4;
    if (dense) fill("peers", left + begun * wide, (cell - begun) * wide);
  };
  for (let cell = 0; cell < cells; cell += 1) {
    const [from, until] = [Math.floor((cell * places) / cells), Math.floor(((cell + 1) * places) / cells)];
    let there = 0;
    for (let at = from; at < until; at += 1) if (((has[at >> 3] | ~wanted[at >> 3]) >> (at & 7)) & 1) there += 1;
    const now = Math.floor((there * 4) / (until - from));
    if (now === dense) continue;
    end(cell);
    [begun, dense] = [cell, now];
  }
  end(cells);
  to.globalAlpha = 1;
}
