// The list of machines: filtered, sorted, and drawn only where it is looked at, so that ten thousand scroll as ten do.
// What is filtered stands in the address. Touches the state.

import { attribute, h, keyed, replace, show, text } from "../dom.js";
import { ago, byName, bytes, count, percent } from "../format.js";
import { command, COMMANDS, wake } from "../actions.js";
import { button, machineLink, state, update as updateState } from "../parts.js";
import { may } from "../session.js";
import { store } from "../store.js";
import { countBy } from "../summary.js";
import { MACHINE_STATES, trouble } from "../words.js";

// The height of a row in pixels, as the style sheet has it, and rows drawn above and below what is seen.
const ROW = 36;
const MARGIN = 8;

const COLUMNS = [
  ["name", "Machine", (one) => one.name],
  ["state", "State", (one) => MACHINE_STATES.indexOf(one.state)],
  ["site", "Site", (one) => one.site],
  ["labels", "Labels", (one) => labels(one)],
  ["hardware", "Hardware", (one) => hardware(one)],
  ["job", "Job", (one) => one.job?.image ?? ""],
  ["seen", "Last seen", (one) => one.last_seen],
];

const labels = (machine) => Object.entries(machine.labels ?? {}).map(([key, value]) => `${key}=${value}`).join(" ");

function hardware(machine) {
  const it = machine.hardware;
  if (!it) return "";
  const made = `${it.system.manufacturer} ${it.system.product}`.trim();
  return [made, `${it.cpu.threads} threads`, bytes(it.memory_bytes)].filter(Boolean).join(", ");
}

// Whether a machine matches words: in its name, id, addresses, serial, labels, hardware.
function matches(machine, words) {
  if (!words.length) return true;
  const said = [machine.name, machine.id, machine.site, ...(machine.macs ?? []), labels(machine), hardware(machine), machine.hardware?.system.serial, machine.job?.image, machine.job?.cause].join(" ").toLowerCase();
  return words.every((word) => said.includes(word));
}

// Whether a machine has a label: `role=web`, `role`, `role!=web`.
function labelled(machine, label) {
  if (!label) return true;
  const [, key, sign, value] = /^([^!=]+)(!?=)?(.*)$/.exec(label) ?? [];
  if (!key) return true;
  const has = machine.labels?.[key.trim()];
  if (!sign) return has !== undefined;
  return (has === value.trim()) === (sign === "=");
}

export function machines(at) {
  const wanted = {
    state: at.query.get("state") ?? "",
    site: at.query.get("site") ?? "",
    label: at.query.get("label") ?? "",
    q: at.query.get("q") ?? "",
    sort: at.query.get("sort") ?? "state",
  };
  const chosen = new Set();
  let rows = [];
  let cursor = -1;

  const search = h("input", { type: "search", placeholder: "Name, serial, address, hardware…  /", "aria-label": "Search machines", value: wanted.q });
  const label = h("input", { type: "text", placeholder: "label, e.g. role=web", "aria-label": "Label", value: wanted.label });
  const site = h("select", { "aria-label": "Site" });
  const chips = h("div", { class: "chips", role: "group", "aria-label": "State" });
  const found = h("span", { class: "hint", role: "status" });
  const body = h("tbody");
  const all = h("input", { type: "checkbox", "aria-label": "Select all that are found" });
  const heads = COLUMNS.map(([key, name]) => h("th", { scope: "col", class: `c-${key}` }, button(name, () => sortBy(key), "plain sort")));
  const table = h("table", { class: "machines" }, h("caption", { class: "unseen" }, "Machines"), h("thead", null, h("tr", null, h("th", { scope: "col", class: "c-check" }, all), heads)), body);
  const scroll = h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Machines" }, table);
  const bulk = h("div", { class: "bulk", role: "toolbar", "aria-label": "For the selected machines", hidden: true });
  const root = h("div", { class: "list" }, h("div", { class: "filters" }, search, label, site, chips, found), scroll, bulk);

  const keep = () => {
    const query = new URLSearchParams(Object.entries(wanted).filter(([key, value]) => value && !(key === "sort" && value === "state")));
    history.replaceState(null, "", `#/machines${query.size ? `?${query}` : ""}`);
    update();
  };
  const sortBy = (key) => {
    wanted.sort = wanted.sort === key ? `-${key}` : key;
    keep();
  };
  search.addEventListener("input", () => { wanted.q = search.value; keep(); });
  label.addEventListener("input", () => { wanted.label = label.value; keep(); });
  site.addEventListener("change", () => { wanted.site = site.value; keep(); });
  scroll.addEventListener("scroll", () => drawRows(), { passive: true });
  all.addEventListener("change", () => {
    for (const machine of rows) if (all.checked) chosen.add(machine.id); else chosen.delete(machine.id);
    update();
  });
  scroll.addEventListener("keydown", (event) => {
    const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      cursor = Math.min(rows.length - 1, Math.max(0, cursor + step));
      const top = cursor * ROW;
      if (top < scroll.scrollTop) scroll.scrollTop = top;
      else if (top + 2 * ROW > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = top + 2 * ROW - scroll.clientHeight;
      drawRows();
    } else if (event.key === "x" && rows[cursor]) toggle(rows[cursor].id);
    else if (event.key === "Enter" && rows[cursor] && event.target === scroll) location.hash = `#/machines/${rows[cursor].id}`;
  });
  const toggle = (id) => {
    if (!chosen.delete(id)) chosen.add(id);
    update();
  };

  function row(machine) {
    const check = h("input", { type: "checkbox", "aria-label": `Select ${machine.name}`, on: { change: () => toggle(machine.id) } });
    const cells = { name: machineLink(machine.id, machine.name), state: state(machine.state), site: h("span"), labels: h("span"), hardware: h("span"), job: h("span"), seen: h("span") };
    const node = h("tr", null, h("td", { class: "c-check" }, check), h("th", { scope: "row", class: "c-name" }, cells.name), ...COLUMNS.slice(1).map(([key]) => h("td", { class: `c-${key}` }, cells[key])));
    return Object.assign(node, { check, shown: cells });
  }
  function fillRow(node, { machine, at: place }) {
    const cells = node.shown;
    attribute(node, "aria-rowindex", place + 2);
    attribute(node, "class", [chosen.has(machine.id) ? "chosen" : "", place === cursor ? "cursor" : ""].join(" ").trim() || null);
    node.check.checked = chosen.has(machine.id);
    text(cells.name, machine.name);
    updateState(cells.state, machine.state);
    attribute(cells.state, "data-held", machine.held || null);
    if (machine.held) text(cells.state.lastChild, `${machine.state}, held`);
    text(cells.site, machine.site);
    text(cells.labels, labels(machine));
    text(cells.hardware, hardware(machine));
    const job = machine.job;
    const it = trouble(machine);
    const far = job?.step && job.state === "running" ? `${job.step} ${job.total ? `${percent(job.done, job.total)} %` : ""}` : job?.state;
    text(cells.job, it ? it.cause : job ? `${job.image} · ${far ?? ""}` : "");
    cells.job.title = cells.job.textContent;
    attribute(cells.job, "class", it ? "bad" : null);
    text(cells.seen, ago(machine.last_seen));
  }
  function drawRows() {
    const first = Math.max(0, Math.floor(scroll.scrollTop / ROW) - MARGIN);
    const last = Math.min(rows.length, first + Math.ceil((scroll.clientHeight || 600) / ROW) + 2 * MARGIN);
    const seen = rows.slice(first, last).map((machine, index) => ({ machine, at: first + index }));
    const gap = (key, size) => (size > 0 ? [{ key, size }] : []);
    keyed(body, [...gap("above", first * ROW), ...seen, ...gap("below", (rows.length - last) * ROW)], (one) => one.key ?? one.machine.id,
      (one) => (one.key ? h("tr", { class: "gap", "aria-hidden": "true" }, h("td", { colspan: COLUMNS.length + 1 })) : row(one.machine)),
      (node, one) => (one.key ? node.firstChild.style.setProperty("height", `${one.size}px`) : fillRow(node, one)));
  }
  function update() {
    const every = [...store.machines.values()];
    const words = wanted.q.toLowerCase().split(/\s+/).filter(Boolean);
    const inSite = every.filter((one) => (!wanted.site || one.site === wanted.site) && labelled(one, wanted.label) && matches(one, words));
    rows = wanted.state ? inSite.filter((one) => one.state === wanted.state) : inSite;
    sort(rows, wanted.sort);
    for (const id of chosen) if (!store.machines.has(id)) chosen.delete(id);
    const by = countBy(inSite, (one) => one.state);
    keyed(chips, ["", ...MACHINE_STATES.filter((name) => by.get(name) || name === wanted.state)], (name) => name, (name) => {
      const node = button("", () => { wanted.state = wanted.state === name ? "" : name; keep(); }, "chip");
      if (name) node.append(state(name));
      else node.append("all");
      node.append(h("strong"));
      return node;
    }, (node, name) => {
      attribute(node, "aria-pressed", wanted.state === name);
      text(node.lastChild, (name ? (by.get(name) ?? 0) : inSite.length).toLocaleString("en"));
    });
    const sites = ["", ...[...new Set(every.map((one) => one.site))].sort(byName)];
    if (site.options.length !== sites.length) replace(site, sites.map((name) => h("option", { value: name }, name || "every site")));
    site.value = wanted.site;
    text(found, `${count(rows.length, "machine")}${rows.length < every.length ? ` of ${every.length.toLocaleString("en")}` : ""}`);
    attribute(table, "aria-rowcount", rows.length + 1);
    COLUMNS.forEach(([key], index) => attribute(heads[index], "aria-sort", wanted.sort === key ? "ascending" : wanted.sort === `-${key}` ? "descending" : null));
    all.checked = rows.length > 0 && rows.every((one) => chosen.has(one.id));
    all.indeterminate = !all.checked && rows.some((one) => chosen.has(one.id));
    drawBulk();
    drawRows();
  }
  function drawBulk() {
    show(bulk, chosen.size > 0);
    if (!chosen.size) return;
    if (!bulk.firstChild) {
      bulk.said = h("strong", { role: "status" });
      const then = (act) => async () => { if (await act([...chosen])) { chosen.clear(); update(); } };
      const buttons = may("operator")
        ? [button("Plan an order…", () => (location.hash = `#/order?machines=${[...chosen].join(",")}`), "primary"),
          ...Object.entries(COMMANDS).filter(([, one]) => !one.one).map(([name, one]) => button(one.label, then((ids) => command(name, ids)), one.danger ? "danger quiet" : "")),
          button("Wake", then(wake))]
        : [h("span", { class: "hint" }, "A viewer can look and not change.")];
      bulk.append(bulk.said, ...buttons, button("Clear", () => { chosen.clear(); update(); }, "plain"));
    }
    text(bulk.said, `${count(chosen.size, "machine")} selected`);
  }
  return { title: "Machines", root, update, close: null };
}

function sort(rows, by) {
  const down = by.startsWith("-");
  const column = COLUMNS.find(([key]) => key === by.replace("-", "")) ?? COLUMNS[0];
  const value = new Map(rows.map((one) => [one, column[2](one)]));
  rows.sort((one, other) => {
    const [a, b] = [value.get(one), value.get(other)];
    const order = typeof a === "number" ? a - b : byName(String(a), String(b));
    return (down ? -order : order) || byName(one.name, other.name);
  });
}
