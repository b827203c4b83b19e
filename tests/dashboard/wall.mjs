// A thousand machines on the wall: eight hundred that only reported, of many kinds, and two hundred agents that transfer.
// Measured in Chromium: when the page is first painted and when it shows all machines, how long an update takes, and how
// many bytes a second the page asks for. Times are printed, for they are the computer's too; counts and bytes are checked.

import { close, launch, Person, right, wrong } from "./browser.mjs";
import { admin, agent, file, host, image, pause, report, serve, token, until } from "./rack.mjs";

const AGENTS = Number(process.env.SWARMBOOT_TEST_AGENTS ?? 200);
// Agents on one address.
const ON_ONE_HOST = 20;
const MACHINES = 1000;
const IMAGE_MIB = 64;
// How long each view is watched, in milliseconds.
const WATCHED = 15_000;
// The bar for streams and maps and whatever else is asked for, in KiB a second.
const MOST = 30;
const DISKS = [["Samsung PM9A3", "nvme"], ["Micron 7450", "nvme"], ["Seagate Exos", "ata"], ["Intel S4510", "scsi"]];

const list = () => JSON.parse(admin("-o", "json", "machine", "list"));

async function reported(from, until_) {
  for (let number = from; number < until_; number += 1) {
    const [model, bus] = DISKS[number % DISKS.length];
    const disks = Array.from({ length: 1 + (number % 3) }, (_, at) => ({ name: `d${at}`, bus, size: (at + 1) * 2 ** 38, sector_bytes: 512, model, serial: `S${number}-${at}`, path: `pci${number}/${at}`, contents: at ? "data" : "blank" }));
    const { status, said } = await report(number, { name: `rack${1 + Math.floor(number / 40)}-${1 + (number % 40)}`, site: `hall-${1 + (number % 6)}`, disks });
    if (status !== 200) throw new Error(`report ${number} got ${status}: ${said}`);
  }
}

// Counts what each request of the page brings, by its route.
async function counted(person) {
  const line = await person.context.newCDPSession(person.page);
  await line.send("Network.enable");
  const routes = new Map();
  const bytes = new Map();
  line.on("Network.requestWillBeSent", ({ requestId, request }) => routes.set(requestId, new URL(request.url).pathname.replace("/api/v1", "")));
  line.on("Network.dataReceived", ({ requestId, dataLength }) => {
    const route = routes.get(requestId) ?? "?";
    bytes.set(route, (bytes.get(route) ?? 0) + dataLength);
  });
  return bytes;
}

const at = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0;

// Watches one view while machines transfer.
async function watched(person, place, bytes) {
  await person.go(place);
  await person.page.evaluate(() => performance.clearMeasures());
  bytes.clear();
  const began = performance.now();
  await pause(WATCHED);
  const seconds = (performance.now() - began) / 1000;
  const updates = (await person.page.evaluate(() => performance.getEntriesByName("swarmboot update").map((one) => one.duration))).sort((one, other) => one - other);
  const each = [...bytes].map(([route, sum]) => [route.startsWith("/swarm/") ? "maps" : ["/live", "/events"].includes(route) ? "streams" : route.slice(0, 24), sum / 1024 / seconds]);
  const of = (name) => each.filter(([route]) => route === name).reduce((sum, [, one]) => sum + one, 0);
  const sum = each.reduce((total, [, one]) => total + one, 0);
  const others = each.filter(([route]) => !["maps", "streams"].includes(route)).map(([route, one]) => `, ${route} ${one.toFixed(1)}`).join("");
  console.log(`${(place || "overview").padEnd(16)} ${String(updates.length).padStart(4)} updates: median ${at(updates, 0.5).toFixed(1)}, 95 % ${at(updates, 0.95).toFixed(1)}, most ${at(updates, 1).toFixed(1)} ms; ${sum.toFixed(1)} KiB/s: streams ${of("streams").toFixed(1)}, maps ${of("maps").toFixed(1)}${others}`);
  right(updates.length > 5, `${place}: ${updates.length} updates in ${seconds.toFixed(0)} s`);
  right(of("streams") > 0 && sum < MOST, `${place}: ${sum.toFixed(1)} KiB/s`);
  await person.picture(`wall-${place.replaceAll("/", "-") || "overview"}`);
}

const pin = await serve();
image("debian-12", IMAGE_MIB);
const wall = token("wall", "viewer");
const hosts = Array.from({ length: Math.ceil(AGENTS / ON_ONE_HOST) }, (_, number) => host(number + 1));
for (let number = 0; number < AGENTS; number += 1) {
  agent(`node-${number + 1}`, `hall-${1 + (number % 2)}`, file(`disk${number}`), IMAGE_MIB, hosts[Math.floor(number / ON_ONE_HOST)]);
}
const each = Math.ceil((MACHINES - AGENTS) / 8);
await Promise.all(Array.from({ length: 8 }, (_, one) => reported(one * each, Math.min(MACHINES - AGENTS, (one + 1) * each))));
await until("all machines to be listed", () => list().length === MACHINES);
console.log(`${MACHINES} machines reported (${Math.round(performance.now() / 1000)} s)`);
// So slow that two cores have time for the page too.
admin("swarm", "limit", "3M");
admin("deploy", "start", "--image", "debian-12", "--machines", `node-[1-${AGENTS}]`, "--max-machines", String(AGENTS), "--yes", "--no-personalise", "--no-confirm");
await until("the machines to transfer", () => list().filter((one) => one.job?.step === "transfer").length >= AGENTS * 0.9);

await launch(pin);
try {
  const person = await new Person("wall").open(wall);
  const bytes = await counted(person);
  // As on the wall in the morning: the token is kept, and nothing else is.
  await person.page.reload();
  await person.page.waitForFunction((number) => document.querySelector(".figure strong")?.textContent === number, MACHINES.toLocaleString("en"));
  const [paint, all] = await person.page.evaluate(() => [performance.getEntriesByName("first-contentful-paint")[0].startTime, performance.now()]);
  const sum = [...bytes.values()].reduce((total, one) => total + one, 0);
  const files = [...bytes].filter(([route]) => /^\/(js|css|icon|$)/.test(route)).reduce((total, [, one]) => total + one, 0);
  console.log(`first paint ${paint.toFixed(0)} ms, all ${MACHINES} machines shown ${all.toFixed(0)} ms; ${(files / 1024).toFixed(0)} KiB of files, ${(sum / 1024).toFixed(0)} KiB in all`);
  for (const place of ["", "machines", "deployments/d1", "deployments"]) await watched(person, place, bytes);
  await person.look("wall");
  const moving = list().filter((one) => one.job?.step === "transfer").length;
  console.log(`${moving} machines still transfer`);
  right(moving >= AGENTS * 0.8, `only ${moving} machines transferred while the page was watched`);
} finally {
  await close();
}
process.exit(wrong.length ? 1 : 0);
