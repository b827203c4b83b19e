// The server under test, agents as processes, and machines that only report. Owns the processes and files of one run, in
// a network of its own that tests/dashboard/run makes; asks the server only what an admin or a machine could ask.

import { execFileSync, spawn } from "node:child_process";
import { createHash, generateKeyPairSync, randomBytes, sign, X509Certificate } from "node:crypto";
import { closeSync, mkdirSync, openSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import http from "node:http";
import tls from "node:tls";

const ADDRESS = "10.9.0.1";
const BOOT = `http://${ADDRESS}:8069`;
export const DASHBOARD = `https://${ADDRESS}:8470`;
const { SWARMBOOT_TEST_PROGRAMS: PROGRAMS, SWARMBOOT_TEST_FOLDER: FOLDER } = process.env;
// Everything that is waited for comes within this many milliseconds, also on a busy computer.
export const PATIENCE = 120_000;

// A file of the run.
export const file = (name) => `${FOLDER}/${name}`;

export const pause = (millis) => new Promise((done) => setTimeout(done, millis));

// Waits until `look` finds something.
export async function until(what, look, limit = PATIENCE) {
  const end = Date.now() + limit;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
    await pause(250);
  }
}

function start(program, args, log) {
  const out = openSync(file(log), "a");
  const child = spawn(program, args, { stdio: ["ignore", out, out], env: { ...process.env, NO_COLOR: "1" } });
  closeSync(out);
  return child;
}

// A command of the admin on the server itself; its standard output.
export function admin(...words) {
  return execFileSync(`${PROGRAMS}/swarmboot`, ["--socket", file("admin.sock"), ...words], { encoding: "utf8", maxBuffer: 2 ** 28, stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, NO_COLOR: "1" } });
}

// A command of somebody with a token, from elsewhere; what it says to a person, and its exit code.
export function refusedThere(token, ...words) {
  try {
    execFileSync(`${PROGRAMS}/swarmboot`, ["--server", DASHBOARD, ...words], { encoding: "utf8", maxBuffer: 2 ** 28, stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, NO_COLOR: "1", SWARMBOOT_TOKEN: token, SWARMBOOT_FINGERPRINT: fingerprint } });
    return { code: 0, said: "" };
  } catch (error) {
    return { code: error.status, said: error.stderr };
  }
}

let fingerprint = "";

// Starts the server; the pin of its certificate's key, by which Chromium believes it and no other.
export async function serve() {
  mkdirSync(file("state"), { recursive: true });
  const server = start(`${PROGRAMS}/swarmboot`, ["--socket", file("admin.sock"), "serve", "--state", file("state"), "--interface", "eth1"], "server.log");
  server.on("exit", (code) => {
    console.error(`the server ended with ${code}:\n${readFileSync(file("server.log"), "utf8").slice(-2000)}`);
    process.exit(1);
  });
  const certificate = await until("the server", certificateOf);
  fingerprint = certificate.fingerprint256;
  return createHash("sha256").update(certificate.publicKey.export({ type: "spki", format: "der" })).digest("base64");
}

function certificateOf() {
  return new Promise((done) => {
    const line = tls.connect({ host: ADDRESS, port: 8470, rejectUnauthorized: false }, () => {
      done(new X509Certificate(line.getPeerCertificate().raw));
      line.end();
    });
    line.on("error", () => done(null));
  });
}

// Makes a token; its text.
export function token(name, role) {
  return admin("token", "create", name, "--role", role).trim();
}

// Adds an image of random bytes, of so many MiB.
export function image(name, mebibytes) {
  writeFileSync(file(name), randomBytes(mebibytes << 20));
  admin("image", "add", name, file(name), "--no-table");
}

// Makes a host with an address of its own, for agents: the server takes only so many connections of one. Its process.
export function host(number) {
  const { pid } = spawn("unshare", ["--net", "sleep", "infinity"], { stdio: "ignore" });
  const inside = (...words) => execFileSync("nsenter", [`--net=/proc/${pid}/ns/net`, "ip", ...words]);
  execFileSync("sh", ["-c", `while [ "$(readlink /proc/${pid}/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done`]);
  execFileSync("ip", ["link", "add", `host${number}`, "type", "veth", "peer", "name", "eth0", "netns", String(pid)]);
  execFileSync("ip", ["link", "set", `host${number}`, "master", "rack", "up"]);
  inside("address", "add", `10.9.2.${number}/16`, "dev", "eth0");
  inside("link", "set", "eth0", "up");
  inside("link", "set", "lo", "up");
  return pid;
}

// Starts an agent with a file as its disk, on the server's own host or another one.
export function agent(name, site, target, mebibytes, on = process.pid) {
  writeFileSync(target, "", { flag: "a" });
  truncateSync(target, mebibytes << 20);
  return start("nsenter", [`--net=/proc/${on}/ns/net`, `${PROGRAMS}/swarmboot-agent`, "run", "--server", BOOT, "--target", target, "--name", name, "--site", site], `${name}.log`);
}

// Reports a machine as its loader would, under a key of its own; the server's status and what it says. `about` are
// the fields of its report that are not those of a small machine with one blank disk.
export async function report(number, about = {}) {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const key = `ed25519:${Buffer.from(publicKey.export({ format: "jwk" }).x, "base64url").toString("hex")}`;
  // From one of sixteen addresses of this host, for the same reason.
  const from = `10.9.1.${1 + (number % 16)}`;
  const { nonce } = JSON.parse((await asked(from, "/v1/identity")).said);
  const mac = `52:54:00:09:${[number >> 8, number & 255].map((one) => one.toString(16).padStart(2, "0")).join(":")}`;
  const hardware = {
    version: 1, reporter: "dashboard", key, firmware: "uefi", memory_bytes: 16 * 2 ** 30,
    system: { manufacturer: "Acme", product: "Node 7", serial: `SN${number}` },
    cpu: { architecture: "x86_64", model: "Xeon", threads: 16 },
    disks: [{ name: "nvme0n1", bus: "nvme", size: 512 * 2 ** 30, sector_bytes: 512, model: "Fast 512", serial: `D${number}`, path: `pci/${number}`, contents: "blank" }],
    nics: [{ name: "eno1", mac, driver: "e1000e", speed_mbit: 1000, link: true, boot: true }],
    ...about,
  };
  const payload = JSON.stringify({ nonce, salt: String(number), hardware });
  const signature = sign(null, Buffer.from(`swarmboot hardware report 2\0${payload}`), privateKey).toString("hex");
  return asked(from, "/v1/report", JSON.stringify({ payload, signature }));
}

function asked(from, path, body = null) {
  return new Promise((done, failed) => {
    const options = { localAddress: from, agent: false, method: body ? "POST" : "GET", headers: body ? { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) } : {} };
    const request = http.request(`${BOOT}${path}`, options, (answer) => {
      let said = "";
      answer.setEncoding("utf8").on("data", (part) => (said += part)).on("end", () => done({ status: answer.statusCode, said }));
    });
    request.on("error", failed).end(body);
  });
}
