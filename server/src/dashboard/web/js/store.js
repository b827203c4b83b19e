// What the page knows of the server: lists that are read once, and what the event streams change of them. Owns this
// state and who is told of a change; views only read it. Touches the API.

import { get, pages, part, PREFIX } from "./api.js";
import { takeLive } from "./live.js";
import { who } from "./session.js";
import { follow } from "./stream.js";
import { Meter } from "./meter.js";

// How many events of the log are kept for the views.
const EVENTS_KEPT = 600;
// Pause after which what the streams named and did not tell is read anew, in milliseconds, and how many at once.
const LOOK_AGAIN = 700;
const LOOK_MOST = 40;
// How many deployments are known, the newest: an old server has thousands.
const ORDERS_KNOWN = 100;
const ORDERS = `/deployments?newest=true&limit=${ORDERS_KNOWN}`;
// Pause between two looks at everything while there is no live stream, because the server has too many already.
const LOOK_PAUSE = 5000;

export const store = {
  status: null,
  machines: new Map(),
  deployments: new Map(),
  images: [],
  kits: [],
  relays: [],
  swarm: { images: [], sites: [] },
  limits: { server: null, sites: {} },
  events: [],
  // `loading`, `live`, `waiting` for the server, or `refused`.
  connection: "loading",
  // Whether all lists were read once.
  loaded: false,
  // Rates by the name of what they are of: `job j1`, `deployment d1`, `site x`, `server`.
  meter: new Meter(),
};

const listeners = new Set();
const ends = [];
const stale = { machines: new Set(), deployments: new Set(), all: false };
let timer = null;

// Whether the token is for everything that the server has.
export function whole() {
  return who.scope.sites.length + who.scope.labels.length === 0;
}

// Calls `then` after each change; returns what ends that.
export function changed(then) {
  listeners.add(then);
  return () => listeners.delete(then);
}

export function tell() {
  for (const listener of listeners) listener();
}

// Reads everything once, then follows. What a role may not read stays empty.
export async function start() {
  // The streams come first, so that nothing is missed while the lists are read.
  listen();
  const quiet = (asked) => asked.catch(() => null);
  const [status, deployments, images, kits, relays, limits] = await Promise.all([
    get("/status"),
    quiet(get(ORDERS)),
    quiet(get("/images")),
    quiet(get("/kits")),
    // Whose token is for a part is not asked for the whole: the browser itself would print each refusal.
    whole() ? quiet(get("/relays")) : [],
    whole() ? quiet(get("/swarm/limits")) : null,
  ]);
  Object.assign(store, {
    status,
    images: images ?? [],
    kits: kits ?? [],
    relays: relays ?? [],
    limits: limits ?? store.limits,
  });
  for (const deployment of deployments ?? []) putDeployment(deployment);
  tell();
  await pages("/machines", (page) => {
    page.forEach(putMachine);
    tell();
  });
  store.loaded = true;
  tell();
}

// Follows the log, and the live stream, which tells what every machine does now.
function listen() {
  ends.push(follow(`${PREFIX}/events`, {
    take: (_, event) => takeEvent(event),
    state: (is, status) => {
      // After a gap the lists may have changed in ways that no event that comes now says; and who is not let in any more
      // finds out by asking.
      if ((is === "live" && store.connection === "waiting") || status === 401) lookAtAll();
      store.connection = is;
      tell();
    },
  }));
  let told = false;
  ends.push(follow(`${PREFIX}/live`, {
    take: (kind, live) => heard(takeLive(store, kind, live)),
    state: (is) => (told = is === "live"),
  }));
  const timer = setInterval(() => !told && store.loaded && store.connection === "live" && lookAtAll(), LOOK_PAUSE);
  ends.push(() => clearInterval(timer));
}

// Forgets everything, for who signs in next.
export function stop() {
  for (const end of ends.splice(0)) end();
  clearTimeout(timer);
  timer = null;
  for (const map of [store.machines, store.deployments]) map.clear();
  Object.assign(store, { status: null, images: [], kits: [], relays: [], events: [], connection: "loading", loaded: false });
  store.swarm = { images: [], sites: [] };
}

// Keeps a deployment. Its jobs and its machines' jobs are the same objects, so that each thing is known once.
export function putDeployment(deployment) {
  store.deployments.set(deployment.id, deployment);
  for (const job of deployment.jobs) {
    measureJob(job);
    const machine = store.machines.get(job.machine);
    if (machine?.job?.id === job.id) machine.job = job;
  }
  measureDeployment(deployment);
}

// Keeps a machine.
export function putMachine(machine) {
  store.machines.set(machine.id, machine);
  const known = machine.job && jobOf(machine.job.deployment, machine.job.id);
  if (known) machine.job = Object.assign(known, machine.job);
}

function measureJob(job, now) {
  if (job.state === "running") store.meter.at(`job ${job.id}`, job.sources.server + job.sources.peers, now);
}

function measureDeployment(deployment, now) {
  if (!deployment || !isLive(deployment)) return;
  const received = deployment.jobs.reduce((sum, job) => sum + job.sources.server + job.sources.peers, 0);
  store.meter.at(`deployment ${deployment.id}`, received, now);
}

// Whether a deployment has a job that something may still happen to.
export function isLive(deployment) {
  return deployment.open || deployment.jobs.some((job) => ["ordered", "running", "written"].includes(job.state));
}

// The job of that number, of a deployment that is known.
export function jobOf(deployment, id) {
  return store.deployments.get(deployment)?.jobs.find((job) => job.id === id);
}

// Takes one event of the log: what it says of a job is true at once, and what it may mean for states is read anew.
function takeEvent(event) {
  if (!event || event.step === undefined) return;
  const job = event.job ? jobOf(event.deployment, event.job) : null;
  if (job) {
    job.step = event.step;
    if (event.kind === "started") Object.assign(job, { done: 0, total: 0 });
    if (event.sources) job.sources = event.sources;
    if (event.attempt) job.attempt = event.attempt;
    measureJob(job);
    measureDeployment(store.deployments.get(job.deployment));
  }
  store.events.push(event);
  if (store.events.length > EVENTS_KEPT) store.events.splice(0, store.events.length - EVENTS_KEPT);
  // What a job does is in the live stream. What a machine is made of, its labels and its OS are not.
  if (event.machine && (!event.job || event.step === "confirm" || event.kind === "failed")) stale.machines.add(event.machine);
  if (event.deployment && !event.machine) stale.deployments.add(event.deployment);
  lookSoon();
  tell();
}

// Measures the rates of what the swarm's counts have grown by.
function measureSwarm() {
  let sent = 0;
  for (const site of store.swarm.sites) {
    const all = Object.values(site.sent).reduce((sum, one) => sum + one, 0);
    sent += all;
    store.meter.at(`site ${site.site}`, all);
  }
  store.meter.at("server", sent);
}

// After a message of the live stream: what it named and the page does not have is read.
function heard(unknown) {
  for (const id of unknown.machines) stale.machines.add(id);
  for (const id of unknown.deployments) stale.deployments.add(id);
  if (unknown.machines.size || unknown.deployments.size) lookSoon();
  for (const one of store.deployments.values()) measureDeployment(one);
  measureSwarm();
  tell();
}

// Reads everything anew that can have changed while the page was not told.
export function lookAtAll() {
  stale.all = true;
  lookSoon(0);
}

// Reads a machine and its deployment anew soon, after a command.
export function touch(machines = [], deployments = []) {
  for (const id of machines) stale.machines.add(id);
  for (const id of deployments) stale.deployments.add(id);
  lookSoon(50);
}

function lookSoon(pause = LOOK_AGAIN) {
  if (timer === null || pause < LOOK_AGAIN) {
    clearTimeout(timer);
    timer = setTimeout(look, pause);
  }
}

async function look() {
  timer = null;
  const { machines, deployments } = stale;
  const all = stale.all || machines.size > LOOK_MOST;
  Object.assign(stale, { machines: new Set(), deployments: new Set(), all: false });
  try {
    const orders = all ? get(ORDERS) : Promise.all([...deployments].map(one("/deployments", store.deployments)));
    if (all) await pages("/machines", (page) => page.forEach(putMachine));
    else await Promise.all([...machines].map(one("/machines", store.machines)));
    for (const deployment of await orders) if (deployment) putDeployment(deployment);
    if (all) store.status = await get("/status");
  } catch {
    // The server is gone or refuses; the stream tries again, and looks at all once it is back.
  }
  tell();
}

// Reads one item; one that is gone is forgotten.
function one(path, known) {
  return async (id) => {
    try {
      const item = await get(`${path}/${part(id)}`);
      if (known === store.machines) putMachine(item);
      return item;
    } catch (error) {
      if (error.status === 404) known.delete(id);
      return null;
    }
  };
}
