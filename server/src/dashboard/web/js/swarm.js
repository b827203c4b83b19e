// How a swarm fills, on one canvas: a row for each machine, by site, as full as what it holds. A graph of two hundred
// machines that all know each other is a ball of wool; rows keep their place, show who lags, and scale. Beside it stands
// how much each was sent by the server and by peers, and sent itself. Touches the page.

import { attribute, h, show, text, visible } from "./dom.js";
import { byName, bytes, count, percent } from "./format.js";
import { colours } from "./tiles.js";

const ROW = 7;
const GAP = 1;
const BREAK = 10;

// The drawing; `set(swarm)` fills it, with a swarm as `GET /swarm` shows it.
export function swarmMap() {
  const canvas = h("canvas", { role: "img", class: "swarm" });
  const words = h("p", { class: "hint" });
  const key = h("p", { class: "key" }, h("span", { data: { part: "server" } }, "from the server"), h("span", { data: { part: "peers" } }, "from peers"), h("span", { data: { part: "uploaded" } }, "sent to peers"));
  const node = h("div", null, words, key, canvas);
  let rows = [];
  canvas.addEventListener("mousemove", (event) => {
    const row = rows.find((one) => event.offsetY >= one.y && event.offsetY < one.y + ROW + GAP);
    canvas.title = row ? visible(`${row.node.name} (${row.node.site}): ${row.node.held} chunks; server ${bytes(row.node.from_server)}, peers ${bytes(row.node.from_peers)}, sent ${bytes(row.node.sent)}${row.node.connected ? "" : "; not connected"}`) : "";
  });
  node.set = (swarm) => {
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
    rows = draw(canvas, swarm);
  };
  return node;
}

function draw(canvas, swarm) {
  const nodes = [...swarm.nodes].sort((one, other) => byName(one.site, other.site) || byName(one.name, other.name));
  let y = 0;
  let site = null;
  const rows = nodes.map((node) => {
    if (site !== null && node.site !== site) y += BREAK;
    site = node.site;
    const row = { y, node };
    y += ROW + GAP;
    return row;
  });
  const width = Math.max(240, canvas.parentElement.clientWidth);
  const scale = devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(y * scale);
  canvas.style.setProperty("width", `${width}px`);
  canvas.style.setProperty("height", `${y}px`);
  const to = canvas.getContext("2d");
  to.setTransform(scale, 0, 0, scale, 0, 0);
  const colour = colours(["track", "server", "peers", "uploaded"]);
  const map = Math.floor(width * 0.7);
  const most = Math.max(1, ...nodes.map((one) => one.sent));
  for (const { y: at, node } of rows) {
    to.fillStyle = colour.track;
    to.fillRect(0, at, map, ROW);
    const full = swarm.chunks ? (map * Math.min(node.held, swarm.chunks)) / swarm.chunks : 0;
    const received = node.from_server + node.from_peers;
    const server = received ? (full * node.from_server) / received : 0;
    to.fillStyle = colour.server;
    to.fillRect(0, at, server, ROW);
    to.fillStyle = colour.peers;
    to.fillRect(server, at, full - server, ROW);
    to.fillStyle = colour.uploaded;
    to.fillRect(map + 12, at, ((width - map - 12) * node.sent) / most, ROW);
  }
  return rows;
}
