// The whole way in a real browser: machines are approved, labelled, planned and ordered for, watched until they are done;
// one fails, its log says why, it is mended and ordered again. As an operator; then what a viewer sees and may not do,
// and what strings of hostile machines do, which is nothing.

import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { close, everywhere, launch, looked, Person, right, wrong } from "./browser.mjs";
import { admin, agent, file, image, pause, refusedThere, report, serve, token, until } from "./rack.mjs";

const MACHINES = 12;
const SMALL = "box4";
const IMAGE_MIB = 160;

const MARKUP = "<img src=x onerror=alert(1)>";
const BREAKOUT = `"'><script>alert(2)</script>`;
const REVERSED = "abc\u202edcba\u200b";

const said = (text) => console.log(`== ${text} (${Math.round(performance.now() / 1000)} s)`);
const job = (name) => JSON.parse(admin("-o", "json", "machine", "show", name)).job;

function names() {
  return Array.from({ length: MACHINES }, (_, at) => `box${at + 1}`);
}

// The file system of one machine's disk is too small for the image, until `mend` makes it larger.
function startAgents() {
  mkdirSync(file("small"));
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=40M", "tmpfs", file("small")]);
  for (const [at, name] of names().entries()) {
    agent(name, at < 8 ? "lab" : "branch", name === SMALL ? file("small/disk") : file(`${name}.disk`), IMAGE_MIB + 16);
  }
}

const mend = () => execFileSync("mount", ["-o", "remount,size=400M", file("small")]);

async function hostile() {
  const evil = await report(1, {
    system: { manufacturer: MARKUP, product: BREAKOUT, serial: "javascript:alert(3)", asset_tag: REVERSED },
    cpu: { architecture: "x86_64", model: "{{7*7}}<svg onload=alert(4)>", threads: 4 },
    disks: [{ name: "sda", bus: "ata", size: 2 ** 36, sector_bytes: 512, model: "</td></table><iframe srcdoc=x>", serial: MARKUP, contents: "data", found: ["<b>ext4</b>"], volumes: [{ partition: 1, kind: "ext4 file system", label: BREAKOUT, uuid: "u" }] }],
    name: MARKUP, site: "<i>site</i>",
  });
  right(evil.status === 200, `a report with markup is refused: ${evil.said}`);
  const escapes = await report(2, { system: { serial: "a\u001b[2Jb" } });
  right(escapes.status >= 400 && escapes.status < 500, `a report with escape codes gets ${escapes.status}`);
}

async function signingIn(person, operator) {
  await person.look("sign in");
  await person.picture("signin");
  await person.refused(async () => {
    await person.page.getByLabel("Token", { exact: true }).fill("sbt_00");
    await person.page.keyboard.press("Enter");
    await person.page.getByRole("alert").waitFor();
  });
  await person.signIn(operator);
}

async function approving(person) {
  await person.go("machines?q=box");
  await person.says(`${MACHINES} machines of ${MACHINES + 1}`);
  await person.page.getByLabel("Select all that are found").check();
  await person.button("Approve").click();
  await person.confirm(MACHINES);
  await person.says(`Approve: ${MACHINES} machines`);
  await person.button("Select").count();
  await person.page.getByLabel("Select all that are found").check();
  await person.button("Label…").click();
  await person.dialog().waitFor();
  await person.page.keyboard.type("rack=r1");
  await person.page.keyboard.press("Enter");
  await person.page.getByText("A dry run says").waitFor();
  await person.picture("label");
  await person.confirm(MACHINES);
  await until("the labels", () => JSON.parse(admin("-o", "json", "machine", "list")).filter((one) => one.labels.rack === "r1").length === MACHINES);
}

async function ordering(person) {
  await person.go("order");
  await person.page.getByLabel("Selectors").fill("rack=r1");
  await person.says(`This is about ${MACHINES} machines`);
  await person.page.getByText("More", { exact: true }).click();
  await person.page.getByLabel("Leave the image as it is").check();
  await person.page.getByLabel("Do not wait for the call home").check();
  await person.button("Show the plan").click();
  const act = person.button(`Overwrite ${MACHINES} disks…`);
  await act.waitFor();
  await person.look("plan");
  await person.picture("plan");
  await act.click();
  await person.dialog().waitFor();
  await person.look("confirmation");
  await person.picture("confirmation");
  // Escape is the way out, and nothing was ordered by it.
  await person.page.keyboard.press("Escape");
  await person.dialog().waitFor({ state: "detached" });
  right(JSON.parse(admin("-o", "json", "deploy", "list")).length === 0, "an order was made though its dialog was left");
  await act.press("Enter");
  await person.confirm(MACHINES);
  await person.page.waitForURL(/#\/deployments\/d1$/);
}

// While they transfer: bars and maps fill, it can be paused, and the pictures are taken.
async function watching(person) {
  const map = person.page.getByRole("img", { name: /held/ });
  await map.waitFor();
  await until("half of the chunks", async () => {
    const label = await map.getAttribute("aria-label");
    return Number(/(\d+) % of/.exec(label)?.[1]) >= 40 || job("box1").state !== "running";
  });
  await person.look("deployment that runs");
  await person.picture("deployment");
  await person.button("Pause…").click();
  await person.confirm();
  await person.button("Resume…").waitFor();
  right(Boolean(JSON.parse(admin("-o", "json", "deploy", "status", "d1")).paused), "the deployment is not paused");
  await person.button("Resume…").click();
  await person.confirm();
  await person.button("Pause…").waitFor();
  await person.go("");
  await person.look("overview while it runs");
  await person.picture("overview");
  await person.go("deployments/d1");
  await until("the jobs to end", () => names().every((name) => ["deployed", "failed"].includes(job(name).state)));
  await person.says(`${MACHINES - 1} of ${MACHINES} written`);
  right(job(SMALL).state === "failed", `${SMALL} is ${job(SMALL).state}`);
}

async function mending(person) {
  await person.go("");
  const needs = person.page.getByRole("region", { name: "Needs you" });
  const cause = job(SMALL).cause;
  await needs.getByText(cause).waitFor();
  right((await needs.locator(".cure").first().textContent()).length > 10, "a failed machine has no cure beside its cause");
  await person.picture("failed-overview");
  await needs.getByRole("link", { name: new RegExp(SMALL) }).click();
  await person.page.locator(".log .said").getByText(/FAILED/).first().waitFor();
  right((await person.page.locator(".banner.failed").textContent()).includes(cause), "the machine's page does not begin with what is wrong");
  await person.look("failed machine");
  await person.picture("failed-machine");
  mend();
  await person.button("Retry…").press("Enter");
  await person.dialog().waitFor();
  await person.look("retry");
  await person.confirm();
  await until(`${SMALL} to be deployed`, () => job(SMALL).state === "deployed");
  await person.page.locator(".title-line .state").getByText("deployed").waitFor();
  await person.picture("mended-machine");
  await person.go("");
  await needs.waitFor({ state: "hidden" });
}

const profile = (site) => `image = "debian-12"\nmachines = "rack=r1, site=${site}"\npersonalise = false\nconfirm = false\n`;

// Adds a profile: with a mistake first, whose place is shown and leads there.
async function keeping(person) {
  await person.go("profiles");
  const wrong_ = profile("lab").replace("image", "imgae");
  await person.page.getByLabel("Name", { exact: true }).fill("web");
  await person.page.getByLabel("TOML text").fill(wrong_);
  await person.button("Check and keep").click();
  const place = person.page.getByRole("button", { name: "1:1", exact: true }).first();
  await place.waitFor();
  await person.says("there is no setting `imgae`");
  await person.look("a profile with a mistake");
  await person.picture("profile-mistake");
  await place.press("Enter");
  right((await person.page.evaluate(() => document.activeElement.id)) === "p-text", "a mistake does not lead to its place");
  right(JSON.parse(admin("-o", "json", "profile", "list")).length === 0, "a profile with a mistake is kept");
  for (const [name, site] of [["web", "lab"], ["db", "branch"]]) {
    await person.page.getByLabel("Name", { exact: true }).fill(name);
    await person.page.getByLabel("TOML text").fill(profile(site));
    await person.button("Check and keep").click();
    await person.says(`${name} is kept`);
  }
  await person.button("web").click();
  await person.says("not personalised; then it restarts");
  await person.look("profiles");
  await person.picture("profiles");
}

// Orders by both at once, and pauses and cancels what was ordered together.
async function together(person) {
  await person.go("order?profile=web");
  await person.page.getByLabel("web", { exact: false }).first().waitFor();
  right(await person.page.locator("#profile-web").isChecked(), "the profile that was chosen is not ticked");
  await person.page.locator("#profile-db").check();
  await person.page.getByText("More", { exact: true }).click();
  await person.page.getByLabel("At the end").selectOption("stay");
  await person.button("Show the plan").click();
  const act = person.button(`Overwrite ${MACHINES} disks…`);
  await act.waitFor();
  await person.look("plan by profiles");
  await person.picture("plan-profiles");
  await act.click();
  await person.confirm(MACHINES);
  await person.page.waitForURL(/#\/deployments\/d2$/);
  await person.page.locator(".placed").getByText("ordered together with").waitFor();
  const both = () => ["d2", "d3"].map((id) => JSON.parse(admin("-o", "json", "deploy", "status", id)));
  right(both().map((one) => one.jobs.length).join() === "4,8", "the profiles do not share the machines");
  for (const [name, done, is] of [["Pause…", "paused", true], ["Resume…", "resumed", false]]) {
    await person.button(name).click();
    await person.page.getByLabel("Also d3, ordered together with it").check();
    await person.confirm();
    await person.says(`d2, d3: ${done}`);
    right(both().every((one) => Boolean(one.paused) === is), `not both are ${done}`);
  }
  await person.button("Cancel…").click();
  await person.page.getByLabel("Also d3, ordered together with it").check();
  await person.confirm();
  await person.says("d2, d3: cancelled");
  right(both().every((one) => one.jobs.every((it) => ["cancelled", "deployed", "failed"].includes(it.state))), "not both are cancelled");
  await person.go("profiles");
  for (const left of [1, 0]) {
    await person.button("Remove").first().click();
    await person.confirm();
    await until("the profile to be gone", () => JSON.parse(admin("-o", "json", "profile", "list")).length === left);
    await person.page.waitForFunction((rows) => document.querySelectorAll("main tbody tr").length === rows, left);
  }
}

async function strings(person) {
  const evil = JSON.parse(admin("-o", "json", "machine", "list")).find((one) => one.hardware?.system.serial.startsWith("javascript"));
  await person.go("machines?q=javascript");
  await person.says(MARKUP);
  await person.go(`machines/${evil.id}`);
  for (const text of [MARKUP, BREAKOUT, "</td></table><iframe srcdoc=x>", "{{7*7}}<svg onload=alert(4)>"]) await person.says(text);
  right((await person.page.locator("main img, main iframe, main script, main b").count()) === 0, "a machine's string became markup");
  right(!/[\u202e\u200b\u001b]/.test(await person.page.locator("main").innerText()), "a machine's invisible characters reached the page");
  await person.look("hostile machine");
  await person.picture("hostile-machine");
}

const WAYS = ["Approve", "Label…", "Hold", "Release", "Reject", "Name…", "Forget", "Wake", "Deploy…", "Retry…", "Inspect", "Pause…", "Cancel…", "Retry failed…", "New order", "New token…", "Freeze or unfreeze…", "Limit the server…", "Limit…", "Order…", "Remove", "Check and keep"];

async function viewing(viewer, text) {
  for (const place of ["", "machines?q=box", "machines/m1", "deployments", "deployments/d1", "order", "tokens", "settings", "sites", "images", "profiles", "log"]) {
    await viewer.go(place);
    if (place.startsWith("machines?")) await viewer.page.getByLabel("Select all that are found").check();
    for (const name of WAYS) right((await viewer.button(name).count()) === 0, `a viewer has a button ${name} at ${place}`);
  }
  await viewer.go("deployments/d1");
  await viewer.says(`${MACHINES} of ${MACHINES} written`);
  await viewer.picture("viewer-deployment");
  // What a page that was tampered with would send is refused, in the words that the command line has.
  const there = refusedThere(text, "machine", "approve", "box1");
  right(there.code !== 0, "a viewer's command is carried out");
  for (const [path, body] of [["/machines", { selection: { machines: ["box1"], labels: [] }, action: "approve" }], ["/deployments/d1/cancel", {}], ["/deployments/d1/pause", { pause: true }], ["/deployments/retry", {}], ["/freeze", { freeze: true }]]) {
    const refusal = await viewer.refused(() => viewer.page.evaluate(async ([to, sent]) => {
      const { post } = await import("/js/api.js");
      const { refused } = await import("/js/dialog.js");
      try {
        await post(to, sent);
        return null;
      } catch (error) {
        refused(error);
        return { status: error.status, said: error.message, hint: error.hint };
      }
    }, [path, body]));
    right(refusal?.status === 403, `${path}: a viewer's request gets ${refusal?.status ?? "what it asks"}`);
    right(refusal && there.said.includes(refusal.said) && there.said.includes(refusal.hint), `${path}: the page says ${JSON.stringify(refusal)} and the command line ${there.said}`);
    await viewer.says(refusal?.said ?? "");
  }
  await viewer.picture("viewer-refused");
}

// Neither a page of somebody else in a frame nor a form of theirs does anything.
async function elsewhere(person) {
  const answer = await person.context.request.get(person.page.url().split("#")[0], { ignoreHTTPSErrors: true });
  const headers = answer.headers();
  right(/frame-ancestors 'none'/.test(headers["content-security-policy"]) && headers["x-frame-options"] === "DENY", "the page can be framed");
  right(headers["x-content-type-options"] === "nosniff" && headers["referrer-policy"] === "no-referrer", "headers are missing");
  right(!headers["access-control-allow-origin"] && !headers["set-cookie"], "others may read, or a cookie is set");
  // Without the header that only the page itself can send there is nobody who asks: no cookie stands for a person.
  const forged = await person.context.request.post(`${new URL(person.page.url()).origin}/api/v1/freeze`, { data: "freeze=true", headers: { "content-type": "application/x-www-form-urlencoded", origin: "https://evil.example" }, ignoreHTTPSErrors: true });
  right(forged.status() === 401, `a form of another site gets ${forged.status()}`);
}

const pin = await serve();
image("debian-12", IMAGE_MIB);
const tokens = Object.fromEntries([["jo", "operator"], ["wall", "viewer"], ["boss", "admin"]].map(([name, role]) => [role, token(name, role)]));
startAgents();
await hostile();
await until("the agents to report", () => JSON.parse(admin("-o", "json", "machine", "list")).length === MACHINES + 1);
// So slow that there is something to watch.
admin("swarm", "limit", "80M");
await launch(pin);
try {
  said("operator: signs in");
  const operator = await new Person("operator").open(null);
  await signingIn(operator, tokens.operator);
  said("operator: approves and labels");
  await approving(operator);
  said("operator: plans and orders");
  await ordering(operator);
  said("operator: watches, pauses, resumes");
  await watching(operator);
  said("operator: a failed machine, its log, retry");
  await mending(operator);
  said("operator: profiles, and two deployments of one order");
  await keeping(operator);
  await together(operator);
  said("operator: strings of a hostile machine");
  await strings(operator);
  await elsewhere(operator);
  await operator.leave();
  said("viewer");
  const viewer = await new Person("viewer").open(tokens.viewer);
  await viewing(viewer, tokens.viewer);
  await viewer.leave();
  said("every page in dark, light and on a phone");
  await everywhere(tokens.admin, [["", "overview"], ["machines", "machines"], ["machines/m1", "machine"], ["deployments", "deployments"], ["deployments/d1", "deployment"], ["order?machines=box1", "order"], ["profiles", "profiles"], ["images", "images"], ["kits", "kits"], ["sites", "sites"], ["log", "log"], ["tokens", "tokens"], ["settings", "settings"], ["nowhere", "nothing"]]);
} finally {
  await close();
}
await pause(0);
console.log(`${looked.pages} pages looked at, ${looked.pictures} pictures, ${wrong.length} wrong`);
process.exit(wrong.length ? 1 : 0);
