// One deployment as it happens: each machine's step, rate and what holds it up, the chunks that come in, what came from
// where, and the log. Touches the state, and the API for the swarm's maps.

import { get, part } from "../api.js";
import { cancel, pause, retry } from "../actions.js";
import { h, keyed, show, text } from "../dom.js";
import { ago, byName, bytes, copies, percent, rate, span } from "../format.js";
import { remaining } from "../meter.js";
import { button, figure, line, machineLink, progress, section, sourceParts, stack, state, sumSources, table, update as updateState } from "../parts.js";
import { may } from "../session.js";
import { isLive, putDeployment, store, tell, whole } from "../store.js";
import { swarmMap } from "../swarm.js";
import { BOTTLENECKS, cure, JOB_STATES, waits } from "../words.js";
import { drawLog } from "./machine.js";
import { intoSites, sums } from "./overview.js";

// How many machines' rows are drawn; the list of machines has the others.
const ROWS_SHOWN = 300;
// Pause between two looks at the chunks of all machines, in milliseconds.
const LOOK = 2000;

export function deployment(at) {
  const [far, speed, eta, out, slow] = [figure("Done"), figure("Rate"), figure("ETA"), figure("Copies out of the server"), figure("Held up by")];
  const spark = line(240, 40);
  const jobs = stack("tall");
  const said = h("p", { class: "hint" });
  const from = stack();
  const fromSaid = h("p", { class: "hint" });
  const sites = h("ul", { class: "chips", "aria-label": "Copies into each site" });
  const map = swarmMap();
  const rows = table("Jobs", ["Machine", "Site", "State", "Step", "Progress", ["Rate", "number"], ["ETA", "number"], "Held up by", "Where its bytes came from"]);
  const log = h("ol", { class: "log" });
  const missing = h("p", { role: "status" });
  const paused = h("p", { class: "banner warning", role: "status", hidden: true });
  const go = button("", () => pause(at.id));
  let detail = null;
  const root = h("div", { class: "deployment" }, missing, paused, h("section", { class: "figures", "aria-label": "In numbers" }, far, speed, eta, out, slow, spark),
    section("Jobs by state", jobs, said), section("Bytes by source", from, fromSaid, sites), section("Swarm", map), section("Machines", rows), section("Log", log));

  if (!store.deployments.has(at.id)) {
    get(`/deployments/${part(at.id)}`).then((one) => { putDeployment(one); update(); }, (error) => text(missing, [error.message, error.hint].filter(Boolean).join(": ")));
  }
  // The chunks are read only while somebody looks and something comes.
  const looking = setInterval(async () => {
    const id = store.deployments.get(at.id)?.image_id;
    const swarm = store.swarm.images.find((one) => one.image === id);
    if (document.hidden || !whole() || !swarm?.nodes.length || (detail && swarm.nodes.every((one) => one.sealed))) return;
    detail = await get(`/swarm/${part(id)}`).catch(() => null);
    tell();
  }, LOOK);
  const rates = (job) => ({ in: store.meter.rate(`job ${job}`), out: store.meter.rate(`out ${job}`) });
  function update() {
    const it = store.deployments.get(at.id);
    show(missing, !it);
    if (!it) return;
    show(paused, Boolean(it.paused));
    text(paused, `Paused ${ago(it.paused)}: jobs that wait do not begin, what runs goes on.`);
    show(go, isLive(it));
    text(go, it.paused ? "Resume…" : "Pause…");
    const sum = sums(it);
    far.set(`${percent(sum.done, sum.total)} %`, `${(sum.jobs.get("deployed") ?? 0) + (sum.jobs.get("written") ?? 0)} of ${sum.total} written`);
    speed.set(rate(sum.speed), "into all disks");
    eta.set(Number.isFinite(sum.remaining) ? span(sum.remaining) : isLive(it) ? "–" : "over", "for those that transfer");
    spark.set(store.meter.line(`deployment ${it.id}`));
    jobs.set(JOB_STATES.map((name) => ({ name, value: sum.jobs.get(name) ?? 0 })), sum.total);
    text(said, JOB_STATES.filter((name) => sum.jobs.get(name)).map((name) => `${sum.jobs.get(name)} ${name}`).join(", "));
    const all = sumSources(it.jobs.map((job) => job.sources));
    from.set(sourceParts(all));
    text(fromSaid, sourceParts(all).filter((one) => one.value).map((one) => `${one.name} ${one.label}`).join(" · ") || "Nothing came yet.");
    const swarm = store.swarm.images.find((one) => one.image === it.image_id);
    out.set(swarm ? copies(swarm.injected_bytes, swarm.wire_bytes) : "–", swarm ? `${bytes(swarm.injected_bytes)} of ${bytes(swarm.wire_bytes)} a copy` : "");
    keyed(sites, intoSites(swarm), (one) => one.site, () => h("li"), (chip, one) => text(chip, `${one.site} ${one.copies}× · ${bytes(one.sent)}`));
    const nodes = new Map((swarm?.nodes ?? []).map((node) => [node.job, node]));
    slow.set(...holdUp(swarm?.nodes ?? []));
    map.set(swarm, detail, rates);
    const order = { failed: 0, refused: 1, running: 2, ordered: 3, written: 4, deployed: 5, cancelled: 6 };
    const sorted = [...it.jobs].sort((one, other) => order[one.state] - order[other.state] || byName(one.name, other.name));
    keyed(rows.body, sorted.slice(0, ROWS_SHOWN), (job) => job.id, jobRow, (node, job) => node.set(job, nodes.get(job.id)));
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
