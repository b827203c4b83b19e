// What can be done with machines and orders, each the way the command line does it: a dry run first, then what it showed
// is confirmed and sent. Touches the API.

import { onceKey, part, post } from "./api.js";
import { ask, ASK_TWICE_FROM, askText, confirmShown, notice, refused } from "./dialog.js";
import { h } from "./dom.js";
import { count } from "./format.js";
import { putDeployment, store, tell, touch } from "./store.js";

// The commands for machines: what the button says, what is sent, and whether it takes something away.
export const COMMANDS = {
  approve: { label: "Approve", action: () => "approve" },
  label: { label: "Label…", action: askLabels },
  inspect: { label: "Inspect", action: () => "inspect" },
  hold: { label: "Hold", action: () => "hold" },
  release: { label: "Release", action: () => "release" },
  reject: { label: "Reject", action: () => "reject", danger: true },
  name: { label: "Name…", action: askName, one: true },
  forget: { label: "Forget", action: () => "forget", danger: true, one: true },
};

async function askName() {
  const name = await askText({ title: "Name the machine", label: "Name", hint: "as it shall stand in lists and, without another order, as its hostname", act: "Go on" });
  return name ? { name } : null;
}

async function askLabels() {
  const words = await askText({ title: "Label machines", label: "Labels", hint: "role=web sets a label, role- removes it; several with spaces between", act: "Go on" });
  if (!words) return null;
  const label = { set: {}, remove: [] };
  for (const word of words.split(/[\s,]+/)) {
    const at = word.indexOf("=");
    if (at > 0) label.set[word.slice(0, at)] = word.slice(at + 1);
    else if (/^[^=]+-$/.test(word)) label.remove.push(word.slice(0, -1));
    else {
      notice(`\`${word}\` is no label`, "failed", "write role=web to set a label, role- to remove it");
      return null;
    }
  }
  return { label };
}

// Carries out a command for machines, by their ids.
export async function command(name, ids) {
  const { label, action, danger } = COMMANDS[name];
  const wanted = await action();
  if (!wanted) return false;
  const sent = { selection: { machines: ids, labels: [] }, action: wanted };
  return shownFirst("/machines", sent, `${label.replace("…", "")} ${count(ids.length, "machine")}?`, label.replace("…", ""), danger, ids);
}

// Sends magic packets to machines.
export function wake(ids) {
  return shownFirst("/machines/wake", { selection: { machines: ids, labels: [] } }, `Wake ${count(ids.length, "machine")}?`, "Wake", false, ids);
}

async function shownFirst(path, sent, title, act, danger, ids) {
  try {
    const would = await post(path, { ...sent, dry_run: true });
    if (!(await confirmShown({ title, shown: would, act, danger }))) return false;
    const done = await post(path, { ...sent, dry_run: false });
    notice(done.length === 1 ? `${done[0].name}: ${done[0].text}` : `${act}: ${count(done.length, "machine")}`);
    touch(ids);
    return true;
  } catch (error) {
    refused(error);
    return false;
  }
}

// Orders jobs again that failed: of a deployment, or of machines.
export async function retry({ deployment = null, machines = [] }) {
  const sent = { deployment, selection: { machines, labels: [] }, dry_run: true };
  try {
    const would = await post("/deployments/retry", sent);
    const lines = would.map((line) => ({ name: line.name, text: `${line.image} to ${line.target ?? "a disk that its rule finds"}`, refused: line.refused }));
    if (!(await confirmShown({ title: "Order again? This overwrites the disks shown.", shown: lines, act: "Overwrite and retry", danger: true }))) return;
    const shown = would.filter((line) => !line.refused).map((line) => ({ job: line.job, disk: line.disk }));
    const done = await post("/deployments/retry", { ...sent, shown, dry_run: false }, { once: onceKey() });
    notice(`ordered again: ${count(done.filter((line) => !line.refused).length, "job")}`);
    touch(done.map((line) => line.machine), [...new Set(done.map((line) => line.deployment))]);
  } catch (error) {
    refused(error);
  }
}

// A box that says whether those that were ordered together with a deployment are meant too; null for one alone.
function togetherBox({ with: others = [] }) {
  if (!others.length) return null;
  const node = h("input", { type: "checkbox", id: "together" });
  return Object.assign(h("label", { class: "check", for: "together" }, node, `Also ${others.join(", ")}, ordered together with it`), { node });
}

// Cancels a deployment, or its jobs of some machines.
export async function cancel(id, machines = []) {
  const deployment = store.deployments.get(id);
  const over = (job) => ["deployed", "failed", "refused", "cancelled"].includes(job.state);
  const open = deployment.jobs.filter((job) => !over(job) && (machines.length === 0 || machines.includes(job.machine)));
  const reason = h("input", { type: "text", id: "reason", autocomplete: "off" });
  const also = togetherBox(deployment);
  const body = [
    h("p", null, `${count(open.length, "job")} of ${id} (${deployment.image}) would end. A machine that has begun to write its disk is left without an OS until it is ordered again.`),
    also,
    h("label", { for: "reason" }, "Reason, for the log"),
    reason,
  ];
  const typed = open.length >= ASK_TWICE_FROM ? String(open.length) : null;
  if (!(await ask({ title: `Cancel ${id}?`, body, act: "Cancel the jobs", cancel: "Leave it", danger: true, typed }))) return;
  await change(deployment, "cancel", { selection: { machines, labels: [] }, reason: reason.value.trim() || null }, also, "cancelled");
}

// Pauses a deployment, or lets it go on.
export async function pause(id) {
  const deployment = store.deployments.get(id);
  const goes = !deployment.paused;
  const also = togetherBox(deployment);
  const said = goes ? "None of its jobs that wait begins until it is resumed. What runs goes on." : "Its jobs that wait begin as soon as their machines are there.";
  if (!(await ask({ title: `${goes ? "Pause" : "Resume"} ${id}?`, body: [h("p", null, said), also], act: goes ? "Pause" : "Resume" }))) return;
  await change(deployment, "pause", { pause: goes }, also, goes ? "paused" : "resumed");
}

async function change({ id, with: others = [] }, verb, body, also, done) {
  const together = Boolean(also?.node.checked);
  const all = together ? [id, ...others] : [id];
  try {
    putDeployment(await post(`/deployments/${part(id)}/${verb}`, { ...body, together }));
    notice(`${all.join(", ")}: ${done}`);
    touch([], together ? others : []);
    tell();
  } catch (error) {
    refused(error);
  }
}
