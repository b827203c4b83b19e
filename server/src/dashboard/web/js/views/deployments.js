// The list of deployments, the newest first. Touches the state.

import { h, keyed, show, text } from "../dom.js";
import { ago, bytes, percent, rate } from "../format.js";
import { button, empty, table } from "../parts.js";
import { may } from "../session.js";
import { store } from "../store.js";
import { jobsBar, sums } from "../summary.js";

export function deployments() {
  const list = table("Deployments", ["Order", "Image", "Jobs", ["Done", "number"], ["Rate", "number"], ["ETA", "number"], "Ordered"]);
  const none = empty("Nothing was ordered yet.", may("operator") ? "New order, or swarmboot deploy start" : null);
  const root = h("div", null, none, list);
  const update = () => {
    const all = [...store.deployments.values()].sort((one, other) => other.ordered.localeCompare(one.ordered));
    show(none, all.length === 0);
    show(list, all.length > 0);
    keyed(list.body, all, (one) => one.id, row, (node, one) => node.set(one));
  };
  const actions = may("operator") ? [button("New order", () => (location.hash = "#/order"), "primary")] : [];
  return { title: "Deployments", root, actions, update };
}

function row(first) {
  const jobs = jobsBar();
  const [far, speed, eta, when] = [h("td", { class: "number" }), h("td", { class: "number" }), h("td", { class: "number" }), h("td")];
  const node = h("tr", null, h("th", { scope: "row" }, h("a", { href: `#/deployments/${first.id}` }, first.id)), h("td", null, first.image, h("span", { class: "hint" }, ` ${bytes(first.wire_bytes)}${first.profile ? `, by the profile ${first.profile.name}` : ""}`)), h("td", { class: "wide" }, jobs.bar, jobs.words), far, speed, eta, when);
  node.set = (one) => {
    const sum = sums(one);
    jobs.set(sum);
    text(far, `${percent(sum.done, sum.total)} %`);
    text(speed, rate(sum.speed));
    text(eta, sum.eta);
    text(when, ago(one.ordered));
  };
  return node;
}
