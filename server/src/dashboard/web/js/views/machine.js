// One machine: its way as a band, what it is made of and what is on its disks, its log as it comes, and what can be done
// with it. Touches the API for its older events.

import { get, lines, part } from "../api.js";
import { attribute, h, keyed, replace, show, text } from "../dom.js";
import { ago, bytes, clock, percent, rate, span, when } from "../format.js";
import { command, COMMANDS, retry, wake } from "../actions.js";
import { remaining } from "../meter.js";
import { button, facts, progress, section, sourceParts, stack, state, table, update as updateState } from "../parts.js";
import { may } from "../session.js";
import { putMachine, store } from "../store.js";
import { timeline } from "../timeline.js";
import { BOTTLENECKS, CONTENTS, happened, trouble } from "../words.js";

// How many events of one machine are kept and shown.
const EVENTS_KEPT = 2000;
const EVENTS_SHOWN = 200;

export function machine(at) {
  const sign = state("discovered");
  const line = h("p", { class: "hint" });
  const alarm = h("div", { class: "banner failed", role: "status", hidden: true }, h("strong"), h("p"));
  const far = progress();
  const from = stack("thin");
  const job = section("Job", h("p", { class: "job-line" }), far, from, h("p", { class: "hint" }));
  const band = timeline();
  const hardware = h("div", { class: "columns" });
  const events = h("ol", { class: "log" });
  const follow = h("p", { class: "hint", role: "status" }, "reading…");
  const root = h("div", { class: "machine" }, h("div", { class: "title-line" }, sign, line), alarm, job, section("Its way", band), hardware, section("Log", follow, events));
  const running = new AbortController();
  const seen = new Map();
  let drawnHardware = null;

  const take = (event) => {
    const key = event.kind === "progress" ? `p ${event.job} ${event.attempt} ${event.step}` : event.id;
    seen.set(key, event);
    if (seen.size > EVENTS_KEPT) seen.delete(seen.keys().next().value);
  };
  const read = async () => {
    try {
      if (!store.machines.has(at.id)) putMachine(await get(`/machines/${part(at.id)}`));
      const whole = await get(`/machines/${part(at.id)}`);
      putMachine(whole);
      drawnHardware = null;
      await lines(`/logs?machines=${part(at.id)}`, take, { signal: running.signal });
      text(follow, "");
      update();
    } catch (error) {
      if (error.name !== "AbortError") replace(follow, [error.message, error.hint].filter(Boolean).join(": "));
    }
  };
  read();

  function update() {
    const it = store.machines.get(at.id);
    if (!it) return;
    for (const event of store.events) if (event.machine === it.id) take(event);
    updateState(sign, it.state);
    text(line, [it.held ? "held" : null, it.site ? `site ${it.site}` : null, Object.entries(it.labels ?? {}).map(([key, value]) => `${key}=${value}`).join(" "), `seen ${ago(it.last_seen)}`].filter(Boolean).join(" · "));
    const wrong = trouble(it);
    show(alarm, Boolean(wrong));
    if (wrong) {
      text(alarm.firstChild, wrong.cause);
      text(alarm.lastChild, wrong.cure);
    }
    drawJob(it);
    const all = [...seen.values()].sort((one, other) => one.id - other.id);
    band.set(all);
    drawLog(events, all.slice(-EVENTS_SHOWN).reverse());
    if (it.hardware !== drawnHardware || drawnHardware === null) {
      drawnHardware = it.hardware;
      replace(hardware, hardwareOf(it));
    }
  }
  function drawJob(it) {
    show(job, Boolean(it.job));
    if (!it.job) return;
    const [, said, , , hint] = job.children;
    const speed = store.meter.rate(`job ${it.job.id}`);
    const left = it.job.step === "transfer" ? remaining(it.job.total - it.job.done, speed) : NaN;
    if (!said.firstChild) said.append(h("a", { href: `#/deployments/${it.job.deployment}` }), h("span"));
    attribute(said.firstChild, "href", `#/deployments/${it.job.deployment}`);
    text(said.firstChild, `${it.job.image}, ${it.job.deployment}`);
    text(said.lastChild, ` ${it.job.state}${it.job.step ? `, ${it.job.step}` : ""}${it.job.attempt > 1 ? `, attempt ${it.job.attempt}` : ""}${it.job.state === "running" && speed ? `, ${rate(speed)}` : ""}${Number.isFinite(left) ? `, ${span(left)} left` : ""}`);
    show(far, it.job.state === "running");
    far.set(it.job.done, it.job.total, `${it.job.step ?? "job"} of ${it.name}`, it.job.state);
    from.set(sourceParts(it.job.sources));
    const node = store.swarm.images.flatMap((swarm) => swarm.nodes).find((one) => one.job === it.job.id);
    const words = sourceParts(it.job.sources).filter((one) => one.value).map((one) => `${one.name} ${one.label}`);
    if (node?.bottleneck) words.push(`held up by its ${BOTTLENECKS[node.bottleneck] ?? node.bottleneck}`);
    text(hint, words.join(" · "));
  }
  const it = () => [at.id];
  const actions = may("operator")
    ? [button("Deploy…", () => (location.hash = `#/order?machines=${at.id}`), "primary"),
      button("Retry…", () => retry({ machines: it() })),
      ...Object.entries(COMMANDS).map(([name, one]) => button(one.label, async () => {
        if ((await command(name, it())) && name === "forget") location.hash = "#/machines";
      }, one.danger ? "danger quiet" : "")),
      button("Wake", () => wake(it()))]
    : [];
  const title = () => [...new Set([store.machines.get(at.id)?.name, at.id])].filter(Boolean).join(", ");
  return { get title() { return title(); }, root, actions, update, close: () => running.abort() };
}

// The lines of a log, newest first.
export function drawLog(list, events, named = false) {
  keyed(list, events, (event) => `${event.id}`, (event) => {
    const node = h("li", { data: { kind: event.kind } },
      h("time", { datetime: event.at, title: when(event.at) }, clock(event.at)),
      named ? (event.machine ? h("a", { href: `#/machines/${event.machine}`, class: "name" }, event.name) : h("span", { class: "name" }, event.name)) : null,
      h("span", { class: "step" }, `${event.step}${event.attempt > 1 ? ` (${event.attempt})` : ""}`), h("span", { class: "said" }));
    return node;
  }, (node, event) => text(node.lastChild, `${happened(event, percent)}${event.by ? ` (${event.by})` : ""}`));
}

function hardwareOf(it) {
  const hardware = it.hardware;
  if (!hardware) return [section("Hardware", h("p", { class: "hint" }, "It has not reported yet: DHCP and HTTP have seen it, and its loader has not."), facts([["Addresses", it.macs.join(", ")], ["First seen", when(it.first_seen)]]))];
  const { system, cpu } = hardware;
  const disks = table("Disks", ["Disk", ["Size", "number"], "Model", "Serial", "What is on it"], h("tbody", null, hardware.disks.map((disk) => h("tr", null,
    h("th", { scope: "row" }, disk.name, h("span", { class: "hint" }, ` ${disk.bus}${disk.rotational ? ", spinning" : ""}${disk.read_only ? ", read only" : ""}`)),
    h("td", { class: "number" }, bytes(disk.size)), h("td", null, disk.model || "–"), h("td", { class: "mono" }, disk.serial || "–"),
    h("td", null, h("span", { class: `contents ${disk.contents}` }, CONTENTS[disk.contents] ?? disk.contents), h("span", { class: "hint" }, ` ${[...disk.found, ...disk.volumes.map((one) => `${one.partition ? `${one.partition}: ` : ""}${one.kind}${one.label ? ` “${one.label}”` : ""}`)].join(", ")}`))))));
  const nics = table("Network cards", ["Card", "Address", "Driver", ["Speed", "number"]], h("tbody", null, hardware.nics.map((nic) => h("tr", null,
    h("th", { scope: "row" }, nic.name, nic.boot ? h("span", { class: "hint" }, " booted from") : null), h("td", { class: "mono" }, `${nic.mac} ${nic.address ?? ""}`), h("td", null, nic.driver || "none"), h("td", { class: "number" }, nic.link ? (nic.speed_mbit ? `${nic.speed_mbit} Mbit/s` : "up") : "no link")))));
  return [
    section("Hardware", facts([
      ["Maker", system.manufacturer], ["Product", system.product], ["Serial", system.serial], ["UUID", system.uuid],
      ["Asset tag", system.asset_tag], ["Processor", `${cpu.model || cpu.architecture || "unknown"}, ${cpu.threads} threads`], ["Memory", bytes(hardware.memory_bytes)],
      ["Firmware", hardware.firmware], ["Its OS", it.deployed_image], ["First seen", when(it.first_seen)], ["Addresses", it.macs.join(", ")]])),
    section("Disks", disks),
    section("Network", nics),
  ];
}
