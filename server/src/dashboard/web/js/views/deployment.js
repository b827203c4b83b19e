// One deployment as it happens: each machine's step, rate and what holds it up, the chunks that come in, what came from
// where, and the log. Touches the state, and the API for the swarm's maps.

import { get, part } from "../api.js";
import { cancel, pause, retry } from "../actions.js";
import { h, keyed, replace, show, text } from "../dom.js";
import { ago, byName, bytes, rate, span } from "../format.js";
import { remaining } from "../meter.js";
import { button, figure, machineLink, progress, section, sourceParts, stack, state, table, update as updateState } from "../parts.js";
import { may } from "../session.js";
import { isLive, putDeployment, store, tell, whole } from "../store.js";
import { summary } from "../summary.js";
import { swarmMap, takeMaps } from "../swarm.js";
import { BOTTLENECKS, cure, waits } from "../words.js";
import { drawLog } from "./machine.js";

// How many machines' rows are drawn; the list of machines has the others. Making a row takes longer than filling it: so
// many more are made with each drawing, and the page answers meanwhile.
const ROWS_SHOWN = 300;
const ROWS_MORE = 50;
// Pause between two looks at the chunks of all machines, in milliseconds.
const LOOK = 2000;

export function deployment(at) {
  const all = summary(240, 40);
  const slow = figure("Held up by");
  const map = swarmMap();
  const rows = table("Jobs", ["Machine", "Site", "State", "Step", "Progress", ["Rate", "number"], ["ETA", "number"], "Held up by", "Where its bytes came from"]);
  const log = h("ol", { class: "log" });
  const missing = h("p", { role: "status" });
  const paused = h("p", { class: "banner warning", role: "status", hidden: true });
  const placed = h("p", { class: "hint placed" });
  const go = button("", () => pause(at.id));
  let maps = null;
  let drawn = 0;
  const root = h("div", { class: "deployment" }, missing, paused, placed, h("section", { class: "figures", "aria-label": "In numbers" }, all.figures, slow, all.spark),
    section("Jobs by state", all.jobs.bar, all.jobs.words), section("Bytes by source", all.from, all.words, all.sites), section("Swarm", map), section("Machines", rows), section("Log", log));

  if (!store.deployments.has(at.id)) {
    get(`/deployments/${part(at.id)}`).then((one) => { putDeployment(one); update(); }, (error) => text(missing, [error.message, error.hint].filter(Boolean).join(": ")));
  }
  // The chunks are read only while somebody looks and something comes, and then what changed of them.
  let asked = false;
  const looking = setInterval(async () => {
    const id = store.deployments.get(at.id)?.image_id;
    const swarm = store.swarm.images.find((one) => one.image === id);
    if (asked || document.hidden || !whole() || !swarm?.nodes.length || (maps && swarm.nodes.every((one) => one.sealed))) return;
    asked = true;
    maps = await get(`/swarm/${part(id)}?since=${maps?.mark ?? ""}`).then((answer) => takeMaps(maps, answer), () => null);
    asked = false;
    tell();
  }, LOOK);
  const rates = (job) => ({ in: store.meter.rate(`job ${job}`), out: store.meter.rate(`out ${job}`) });
  function update() {
    const it = store.deployments.get(at.id);
    show(missing, !it);
    if (!it) return;
    show(paused, Boolean(it.paused));
    text(paused, `Paused ${ago(it.paused)}: jobs that wait do not begin, what runs goes on.`);
    show(placed, Boolean(it.profile));
    if (it.profile && !placed.firstChild) replace(placed, `By the profile ${it.profile.name}, as it was added ${ago(it.profile.added)}`, it.with?.length ? [", ordered together with ", it.with.map((id) => h("a", { href: `#/deployments/${id}`, class: "in-text" }, id))] : null, ".");
    show(go, isLive(it));
    text(go, it.paused ? "Resume…" : "Pause…");
    const swarm = all.set(it);
    const nodes = new Map((swarm?.nodes ?? []).map((node) => [node.job, node]));
    slow.set(...holdUp(swarm?.nodes ?? []));
    map.set(swarm, maps, rates);
    const order = { failed: 0, refused: 1, running: 2, ordered: 3, written: 4, deployed: 5, cancelled: 6 };
    const sorted = [...it.jobs].sort((one, other) => order[one.state] - order[other.state] || byName(one.name, other.name));
    drawn = Math.min(sorted.length, ROWS_SHOWN, drawn + ROWS_MORE);
    keyed(rows.body, sorted.slice(0, drawn), (job) => job.id, jobRow, (node, job) => node.set(job, nodes.get(job.id)));
    if (drawn < Math.min(sorted.length, ROWS_SHOWN)) tell();
    drawLog(log, store.events.filter((event) => event.deployment === it.id).slice(-100).reverse(), true);
  }
  const actions = may("operator")
    ? [go, button("Retry failed…", () => retry({ deployment: at.id })), button("Cancel…", () => cancel(at.id), "danger quiet")]
    : [];
  const title = () => [store.deployments.get(at.id)?.image, at.id].filter(Boolean).join(", ");
  return { get title() { return title(); }, root, actions, update, close: () => clearInterval(looking) };
}

// What most machines that fetch wait for.
function holdUp(nodes) {
  const by = new Map();
  for (const node of nodes) if (node.bottleneck) by.set(node.bottleneck, (by.get(node.bottleneck) ?? 0) + 1);
  const [first] = [...by].sort((one, other) => other[1] - one[1]);
  return first ? [BOTTLENECKS[first[0]] ?? first[0], [...by].map(([name, number]) => `${number} by ${BOTTLENECKS[name] ?? name}`).join(", ")] : ["–", "nobody fetches"];
}

function jobRow(first) {
  const cells = { site: h("td"), state: state(first.state), step: h("td"), far: progress(), speed: h("td", { class: "number" }), eta: h("td", { class: "number" }), slow: h("td"), from: stack("thin"), said: h("span", { class: "hint" }) };
  const name = machineLink(first.machine, first.name);
  const node = h("tr", null, h("th", { scope: "row" }, name), cells.site, h("td", null, cells.state), cells.step, h("td", { class: "wide" }, cells.far), cells.speed, cells.eta, cells.slow, h("td", { class: "wide" }, cells.from, cells.said));
  node.set = (job, peer) => {
    const speed = store.meter.rate(`job ${job.id}`);
    const left = job.step === "transfer" && job.state === "running" ? remaining(job.total - job.done, speed) : NaN;
    text(cells.site, peer?.site ?? store.machines.get(job.machine)?.site ?? "");
    updateState(cells.state, job.state);
    text(cells.step, job.state === "ordered" ? waits(job) : `${job.step ?? "–"}${job.attempt > 1 ? ` (${job.attempt})` : ""}`);
    const ended = ["deployed", "written"].includes(job.state);
    cells.far.set(ended ? 1 : job.done, ended ? 1 : job.total, `${job.step ?? "job"} of ${job.name}`, job.state);
    text(cells.speed, job.state === "running" ? rate(speed) : "");
    text(cells.eta, Number.isFinite(left) ? span(left) : "");
    text(cells.slow, job.cause ?? (job.state === "running" && peer?.bottleneck ? BOTTLENECKS[peer.bottleneck] ?? peer.bottleneck : ""));
    cells.slow.className = job.cause ? "bad" : "";
    cells.slow.title = job.state === "failed" ? cure(job.cause ?? "", job) : "";
    cells.from.set(sourceParts(job.sources));
    const out = store.meter.rate(`out ${job.id}`);
    text(cells.said, job.sources.uploaded ? `sent ${bytes(job.sources.uploaded)}${out ? `, ${rate(out)} now` : ""}` : "");
  };
  return node;
}
