// Core: what a message of the live stream changes of what the page knows. Its names are short, as the server's shapes
// say: `m` a machine, `j` a job, `d` a deployment or what is done, `t` of how much, `k` a node. Touches the state given.

// The stream's own tables: swarms by image and nodes by key.
const swarms = new Map();
const nodes = new Map();

// Applies `live` to `store`; returns the machines and deployments that it names and the page does not know.
export function takeLive(store, kind, live) {
  const unknown = { machines: new Set(), deployments: new Set() };
  if (kind === "snapshot") {
    swarms.clear();
    nodes.clear();
  }
  for (const one of live.machines ?? []) takeMachine(store, one, unknown);
  for (const one of live.progress ?? []) {
    const job = store.machines.get(one.m)?.job;
    if (job) Object.assign(job, { done: one.d, total: one.t });
  }
  for (const one of live.deployments ?? []) {
    const known = store.deployments.get(one.d);
    const jobs = Object.values(one.jobs).reduce((sum, number) => sum + number, 0);
    // When it was paused, and which jobs were added, is not told here.
    if (!known || known.jobs.length !== jobs || Boolean(known.paused) !== Boolean(one.paused)) unknown.deployments.add(one.d);
    else known.open = one.open;
  }
  for (const one of live.swarms ?? []) swarms.set(one.image, one);
  for (const one of live.nodes ?? []) nodes.set(one.k, { ...nodes.get(one.k), ...one });
  for (const one of live.counts ?? []) takeCounts(store, one);
  if (live.server && store.status) store.status.frozen = live.server.frozen ?? null;
  for (const id of live.gone?.machines ?? []) store.machines.delete(id);
  for (const id of live.gone?.deployments ?? []) store.deployments.delete(id);
  for (const id of live.gone?.swarms ?? []) {
    swarms.delete(id);
    for (const [key, node] of nodes) if (node.image === id) nodes.delete(key);
  }
  for (const key of live.gone?.nodes ?? []) nodes.delete(key);
  store.swarm = { images: shown(), sites: sites(store.swarm.sites, live.sites, kind) };
  return unknown;
}

function takeMachine(store, one, unknown) {
  const machine = store.machines.get(one.m);
  if (!machine) {
    unknown.machines.add(one.m);
    return;
  }
  if (Boolean(one.doubted) !== Boolean(machine.doubts?.length)) unknown.machines.add(one.m);
  Object.assign(machine, { name: one.name, site: one.site, state: one.state, held: Boolean(one.held) });
  if (!one.note) machine.note = null;
  else if (!machine.note) unknown.machines.add(one.m);
  if (!one.job) return;
  if (machine.job?.id !== one.job.j) {
    unknown.machines.add(one.m);
    unknown.deployments.add(one.job.d);
    return;
  }
  const { state, attempt, step = null, cause = null, changed } = one.job;
  Object.assign(machine.job, { state, attempt, step, cause, changed });
}

function takeCounts(store, one) {
  const node = nodes.get(one.k) ?? { k: one.k };
  nodes.set(one.k, Object.assign(node, { held: one.h, leased: one.l ?? 0, from_server: one.s, from_peers: one.p, sent: one.u, bottleneck: one.b ?? null }));
  const job = node.m && store.machines.get(node.m)?.job;
  if (job?.id !== one.k) return;
  // What the log says of an attempt and what the swarm counts are two measures of the same bytes: the larger is newer.
  job.sources.server = Math.max(job.sources.server, one.s);
  job.sources.peers = Math.max(job.sources.peers, one.p);
  job.sources.uploaded = Math.max(job.sources.uploaded, one.u);
  store.meter.at(`job ${job.id}`, job.sources.server + job.sources.peers);
  store.meter.at(`out ${job.id}`, one.u);
}

// The swarms, as `GET /swarm` shows them.
function shown() {
  const by = new Map([...swarms.values()].map((swarm) => [swarm.image, { ...swarm, nodes: [] }]));
  for (const node of nodes.values()) {
    by.get(node.image)?.nodes.push({ held: 0, leased: 0, from_server: 0, from_peers: 0, sent: 0, bottleneck: null, ...node, job: node.m ? node.k : null });
  }
  return [...by.values()];
}

function sites(before, now, kind) {
  if (kind === "snapshot") return now ?? [];
  if (!now) return before;
  const all = new Map(before.map((site) => [site.site, site]));
  for (const site of now) all.set(site.site, site);
  return [...all.values()];
}
