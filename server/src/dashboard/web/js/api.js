// Requests to the API. Owns how a refusal reaches a person: sentence, cause, hint, whatever the status. Touches the
// network and the session.

import { current } from "./session.js";
import { split } from "./stream.js";

// The path that all routes begin with.
export const PREFIX = "/api/v1";

// A refusal of the server, or of the network: what, why, and what to do.
export class Refused extends Error {
  constructor(status, what, why, hint) {
    super(what);
    Object.assign(this, { status, why, hint });
  }
}

let signedOut = () => {};

// Calls `then` when the server does not take the token any more.
export function onSignedOut(then) {
  signedOut = then;
}

async function request(method, path, body, options = {}) {
  const headers = { Accept: "application/json" };
  const token = options.token ?? current();
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (options.once) headers["Idempotency-Key"] = options.once;
  const sent = { method, headers, cache: "no-store", credentials: "omit", signal: options.signal };
  if (body !== undefined) sent.body = JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(PREFIX + path, sent);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "the server does not answer", null, "is it running, and is this computer on its network?");
  }
  if (!answer.ok) throw await refusal(answer, options);
  return answer;
}

async function refusal(answer, options) {
  const said = await answer.json().catch(() => ({}));
  const what = said.error ?? said.title ?? `the server answered ${answer.status}`;
  if (answer.status === 401 && !options.token) signedOut(what);
  return new Refused(answer.status, what, said.cause ?? null, said.hint ?? null);
}

// GET, with the answer's JSON.
export async function get(path, options) {
  return (await request("GET", path, undefined, options)).json();
}

// POST, with the answer's JSON.
export async function post(path, body, options) {
  return (await request("POST", path, body ?? {}, options)).json();
}

// DELETE, with the answer's JSON.
export async function remove(path) {
  return (await request("DELETE", path)).json();
}

// A list whose items have ascending ids, page by page; `take` gets each page.
export async function pages(path, take, limit = 500) {
  for (let after = 0; after !== null; ) {
    const items = await get(`${path}?limit=${limit}&after=${after}`);
    take(items);
    after = items.length < limit ? null : items.at(-1).id.slice(1);
  }
}

// A response of JSON lines: `take` gets each line as it comes.
export async function lines(path, take, options = {}) {
  const answer = await request(options.method ?? "GET", path, options.body, options);
  await split(answer.body, "\n", (line) => line && take(JSON.parse(line)));
}

// A key for one order: the same for each try of it, so that a repeated request orders once.
export function onceKey() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(random, (one) => one.toString(16).padStart(2, "0")).join("");
}

// A part of a path.
export const part = encodeURIComponent;
