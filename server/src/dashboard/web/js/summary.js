// A deployment in numbers, as the wall, the list and its own page have it: its jobs by state, how far and how fast it is,
// and where its bytes came from. Touches the state.

import { h, keyed, text } from "./dom.js";
import { byName, bytes, copies, percent, rate, span } from "./format.js";
import { remaining } from "./meter.js";
import { figure, line, sourceParts, stack, sumSources } from "./parts.js";
import { isLive, store } from "./store.js";
import { JOB_STATES } from "./words.js";

// How many items have each key.
export function countBy(items, key) {
  const by = new Map();
  for (const item of items) by.set(key(item), (by.get(key(item)) ?? 0) + 1);
  return by;
}

// The deployment's jobs, how far they are together, and when that will be all.
export function sums(deployment) {
  const jobs = countBy(deployment.jobs, (job) => job.state);
  const at = deployment.jobs.filter((job) => job.state === "running" && job.step === "transfer");
  const left = at.reduce((sum, job) => sum + Math.max(0, job.total - job.done), 0);
  const speed = at.reduce((sum, job) => sum + store.meter.rate(`job ${job.id}`), 0);
  const done = deployment.jobs.reduce((sum, job) => sum + far(job), 0);
  const written = (jobs.get("deployed") ?? 0) + (jobs.get("written") ?? 0);
  const eta = at.length ? remaining(left, speed) : NaN;
  return { jobs, done, total: deployment.jobs.length, written, speed, eta: Number.isFinite(eta) ? span(eta) : isLive(deployment) ? "–" : "over" };
}

// How much of a job is done, from 0 to 1.
export function far(job) {
  if (["deployed", "written"].includes(job.state)) return 1;
  if (job.state !== "running") return 0;
  if (job.step === "transfer") return job.total > 0 ? job.done / job.total : 0;
  return ["verify", "personalise", "seal", "linger", "reboot", "confirm"].includes(job.step) ? 1 : 0;
}

// A bar of jobs by state, and the same in words below it.
export function jobsBar(className = "") {
  const bar = stack(className);
  const words = h("p", { class: "hint" });
  const set = (sum) => {
    const parts = JOB_STATES.map((name) => ({ name, value: sum.jobs.get(name) ?? 0 }));
    bar.set(parts, sum.total);
    text(words, parts.filter((one) => one.value).map((one) => `${one.value} ${one.name}`).join(", ") || "no job");
  };
  return { bar, words, set };
}

// All of it; `set(deployment)` fills the nodes, which each view places, and returns the deployment's swarm.
export function summary(width, height, thin = "") {
  const [done, speed, eta, out] = [figure("Done"), figure("Rate"), figure("ETA"), figure("Copies out of the server")];
  const spark = line(width, height);
  const jobs = jobsBar(thin ? "" : "tall");
  const from = stack(thin);
  const words = h("p", { class: "hint" });
  const sites = h("ul", { class: "chips", "aria-label": "Copies into each site" });
  const set = (it) => {
    const sum = sums(it);
    const swarm = store.swarm.images.find((one) => one.image === it.image_id);
    done.set(`${percent(sum.done, sum.total)} %`, `${sum.written} of ${sum.total} written`);
    speed.set(rate(sum.speed), "into all disks");
    eta.set(sum.eta, "for those that transfer");
    out.set(swarm ? copies(swarm.injected_bytes, swarm.wire_bytes) : "–", swarm ? `${bytes(swarm.injected_bytes)} of ${bytes(swarm.wire_bytes)} a copy` : "");
    spark.set(store.meter.line(`deployment ${it.id}`));
    jobs.set(sum);
    const parts = sourceParts(sumSources(it.jobs.map((job) => job.sources)));
    from.set(parts);
    text(words, parts.filter((one) => one.value).map((one) => `${one.name} ${one.label}`).join(" · ") || "Nothing came yet.");
    keyed(sites, intoSites(swarm), (one) => one.site, () => h("li"), (chip, one) => text(chip, `${one.site} ${one.copies}× · ${bytes(one.sent)}`));
    return swarm;
  };
  return { figures: [done, speed, eta, out], spark, jobs, from, words, sites, set };
}

// Copies of a swarm's image that the server sent into each site.
function intoSites(swarm) {
  const by = new Map();
  for (const one of swarm?.nodes ?? []) by.set(one.site, (by.get(one.site) ?? 0) + one.from_server);
  return [...by].map(([site, sent]) => ({ site, sent, copies: copies(sent, swarm.wire_bytes) })).sort((one, other) => byName(one.site, other.site));
}
