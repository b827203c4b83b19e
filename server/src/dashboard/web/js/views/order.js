// A new order: image, machines, what is given to the OS; then the plan of a dry run with each disk and what is on it;
// then it is confirmed, and watched. Nothing is sent but a dry run before that. Touches the API.

import { get, onceKey, post } from "../api.js";
import { ask, ASK_TWICE_FROM, notice, refused } from "../dialog.js";
import { h, replace, show, text } from "../dom.js";
import { bytes, count, when } from "../format.js";
import { button, empty, field, section, table } from "../parts.js";
import { may } from "../session.js";
import { store, touch } from "../store.js";
import { warning, wishWords } from "../words.js";

// What machines do at the end; by default what a profile says, else they restart.
const ENDS = { "": "as the profile says, or restart", reboot: "restart", "power-off": "switch off", stay: "stay on" };

export function order(at) {
  if (!may("operator")) return { title: "New order", root: empty("A viewer cannot order.", "an admin can make a token with the role operator") };
  const found = h("p", { role: "status" });
  const input = (id, more = {}) => h("input", { type: "text", id, autocomplete: "off", spellcheck: "false", ...more });
  const image = h("select", { id: "image", required: true });
  const machines = input("machines", { value: at.query.get("machines") ?? "", placeholder: "rack1-[01-16], m7" });
  const labels = input("labels", { placeholder: "role=web, site=lab, memory>=16G" });
  const disk = input("disk", { placeholder: "the only disk; or bus=nvme,size>=100G" });
  const hostname = input("hostname", { placeholder: "{name}" });
  const keys = h("textarea", { id: "keys", rows: 2, spellcheck: "false" });
  const data = h("textarea", { id: "data", rows: 3, spellcheck: "false" });
  const gather = input("gather", { inputmode: "numeric", placeholder: "do not wait" });
  const most = input("most", { inputmode: "numeric", placeholder: "all" });
  const check = (id, label) => h("label", { class: "check", for: id }, h("input", { type: "checkbox", id }), label);
  const [open, leave, unconfirmed, accept] = [check("open", "Also machines that appear later and match the labels"), check("leave", "Leave the image as it is"), check("unconfirmed", "Do not wait for the call home"), check("accept", "Accept that another disk may boot")];
  const end = h("select", { id: "end" }, Object.entries(ENDS).map(([value, words]) => h("option", { value }, words)));
  const plan = h("div", { class: "plan", "aria-live": "polite" });
  const profiles = h("fieldset", { class: "profiles", hidden: true }, h("legend", null, "Profiles"), h("p", { class: "hint" }, "each for the machines that fit it, or the selector beside it; what stands below goes before what they say"));
  const chosen = () => [...profiles.querySelectorAll(":checked")].map((one) => ({ name: one.value, ...(one.selector.value.trim() ? { machines: one.selector.value.trim() } : {}) }));
  // Without a profile the order names an image; with one it may.
  const fillImages = () => {
    const by = chosen().length > 0;
    const names = [...(by ? [["", "as the profile says"]] : []), ...store.images.map((one) => [one.name, `${one.name} (${bytes(one.wire_bytes)})`])];
    if (image.options.length === names.length) return;
    const before = image.value;
    replace(image, names.map(([value, words]) => h("option", { value }, words)));
    image.required = !by;
    image.value = by ? "" : before || (names[0]?.[0] ?? "");
  };
  get("/profiles").then((all) => {
    profiles.append(...all.map((one) => profileChoice(one, one.name === at.query.get("profile"))));
    show(profiles, all.length > 0);
    fillImages();
  }, () => {});
  const form = h("form", { class: "card form" },
    profiles, field(image, "Image"), field(machines, "Machines", "names, ids, serials, addresses, hostlists; commas between"), field(labels, "Selectors", "machines that fit all of them; commas between", found),
    field(disk, "Disk"), field(hostname, "Hostname"),
    h("details", null, h("summary", null, "More"), field(keys, "SSH keys", "one in a line"), field(data, "User-data"), field(gather, "Begin when so many have arrived"), field(most, "Most at once"), field(end, "At the end"), open, leave, unconfirmed, accept),
    h("button", { type: "submit", class: "primary" }, "Show the plan"));
  const ticked = (label) => label.firstChild.checked;
  const split = (value) => value.split(/,(?![^[]*\])|\s+/).map((one) => one.trim()).filter(Boolean);
  const made = () => ({
    image: image.value,
    profiles: chosen(),
    selection: { machines: split(machines.value), labels: labels.value.trim() ? [labels.value.trim()] : [] },
    open: ticked(open),
    disk: disk.value.trim(),
    hostname: hostname.value.trim() || null,
    ssh_keys: keys.value.split("\n").map((one) => one.trim()).filter(Boolean),
    user_data: data.value || null,
    no_personalise: ticked(leave),
    no_confirm: ticked(unconfirmed),
    ...(end.value ? { finish: end.value } : {}),
    gather: Number(gather.value) || null,
    max_parallel: Number(most.value) || null,
    accept: ticked(accept) ? ["other-disk"] : [],
  });
  // How many machines it is about, while it is typed; which disks it would take, the plan shows.
  let timer = null;
  const counted = async () => {
    const query = new URLSearchParams({ machines: machines.value.trim(), labels: labels.value.trim() });
    const { count: number, nobody } = query.get("machines") || query.get("labels") ? await get(`/machines/count?${query}`).catch((error) => ({ nobody: error.message })) : {};
    text(found, number ? `This is about ${count(number, "machine")}.` : nobody);
  };
  form.addEventListener("input", ({ target }) => {
    replace(plan);
    fillImages();
    clearTimeout(timer);
    if (target === machines || target === labels) timer = setTimeout(counted, 400);
  });
  if (machines.value) counted();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const wanted = made();
    if (!wanted.profiles.length && !wanted.selection.machines.length && !wanted.selection.labels.length) return notice("no machine is named", "failed", "name machines or a label");
    try {
      const would = await post("/deployments", { ...wanted, dry_run: true });
      replace(plan, planned(would, () => send(wanted, would)));
      plan.scrollIntoView({ block: "nearest" });
    } catch (error) {
      refused(error);
    }
    return undefined;
  });
  return { title: "New order", root: h("div", { class: "order" }, form, plan), update: fillImages };
}

// A profile that an order may use, with a selector of its own.
function profileChoice(one, is) {
  const box = h("input", { type: "checkbox", id: `profile-${one.name}`, value: one.name, checked: is });
  box.selector = h("input", { type: "text", "aria-label": `Machines for ${one.name}`, placeholder: one.machines || "those that are named below", autocomplete: "off", spellcheck: "false" });
  return h("div", { class: "profile" }, h("label", { class: "check", for: box.id }, box, one.name, h("span", { class: "hint" }, one.image)), box.selector);
}

// The images that a dry run would write.
const images = (would) => [...new Set(would.profiles?.map((one) => one.image.name) ?? [would.image.name])].join(" and ");

function planned(would, go) {
  const taken = would.machines.filter((line) => !line.refused);
  const rows = would.machines.slice(0, 1000).map((line) => h("tr", { class: line.refused ? "refused" : null },
    h("th", { scope: "row" }, line.name), h("td", null, line.target ?? "not known yet"),
    h("td", null, line.profile ? h("p", null, `${line.profile}${line.hostname ? `, as ${line.hostname}` : ""}`) : null, line.refused ? h("p", { class: "bad" }, `not written: ${line.refused}`) : null, line.warnings.map((one) => h("p", { class: "hint" }, warning(one).text)))));
  const act = taken.length ? button(`Overwrite ${count(taken.length, "disk")}…`, go, "danger") : null;
  return section("Plan", h("p", null, `A dry run: ${count(taken.length, "machine")} would be written with ${images(would)}${would.machines.length > taken.length ? `, ${would.machines.length - taken.length} would not` : ""}.`),
    (would.profiles ?? []).map((one) => h("p", { class: "hint" }, `${one.profile.name}, as it was added ${when(one.profile.added)}: ${one.image.name}; ${wishWords(one.wish)}.`)),
    would.frozen ? h("p", { class: "banner frozen" }, "The server is frozen: nothing can be ordered.") : null,
    table("Plan", ["Machine", "Disk, and what is on it", "What to know"], h("tbody", null, rows)), would.frozen ? null : act);
}

async function send(wanted, would) {
  const taken = would.machines.filter((line) => !line.refused);
  // Above the ceiling of one order the number counts for the server, too.
  const over = taken.length > would.max_machines;
  const typed = over || taken.length >= ASK_TWICE_FROM ? String(taken.length) : null;
  const sure = await ask({ title: `Overwrite ${count(taken.length, "disk")}?`, body: h("p", null, `This overwrites the disks shown in the plan with ${images(would)}. What is on them is lost.`), act: "Overwrite and deploy", danger: true, typed });
  if (!sure) return;
  try {
    const shown = { image: would.image.id, machines: taken.map(({ machine, disk, profile }) => ({ machine, disk, profile })), profiles: would.profiles?.map((one) => ({ ...one.profile, image: one.image.id })) };
    const answer = await post("/deployments", { ...wanted, ...(over ? { max_machines: taken.length } : {}), shown, dry_run: false }, { once: onceKey() });
    const all = answer.profiles?.map((one) => one.deployment).filter(Boolean) ?? [answer.deployment];
    notice(`${all.join(" and ")} ${all.length === 1 ? "is" : "are"} ordered`);
    touch(answer.machines.map((line) => line.machine), all);
    location.hash = `#/deployments/${answer.deployment}`;
  } catch (error) {
    refused(error);
  }
}
