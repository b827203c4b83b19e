// Server-sent events over fetch, because EventSource cannot send a token. Reconnects with Last-Event-ID and growing
// pauses, for ever. Owns one connection for each stream; touches the network.

import { current } from "./session.js";

const PAUSE_LEAST = 500;
const PAUSE_MOST = 15_000;
// A server that says nothing at all for so long is gone: it sends a comment every few seconds otherwise.
const SILENCE = 45_000;

// Follows `path`. `take(event, data, id)` gets each message, with its JSON read; `state(text)` what becomes of the
// connection: `live`, `waiting` or `refused`. `path` may be a function of the last id. Returns what ends it.
export function follow(path, { take, state, last = null }) {
  let ended = false;
  let running = null;
  const run = async () => {
    let pause = PAUSE_LEAST;
    while (!ended) {
      running = new AbortController();
      const began = Date.now();
      try {
        const answer = await open(typeof path === "function" ? path(last) : path, last, running.signal);
        if (answer.status === 401 || answer.status === 403 || answer.status === 404) {
          state?.("refused", answer.status);
          if (answer.status === 401) return;
          pause = PAUSE_MOST;
        } else if (answer.ok) {
          state?.("live");
          await read(answer.body, running, (event, data, id) => {
            if (id !== null) last = id;
            take(event, data, id);
          });
        }
      } catch {
        // The network, or the end of this stream: either way it is tried again below, unless it was ended.
      }
      if (ended) return;
      state?.("waiting");
      pause = Date.now() - began > 10_000 ? PAUSE_LEAST : Math.min(pause * 2, PAUSE_MOST);
      // Not all pages of a wall come back in the same instant.
      await new Promise((done) => setTimeout(done, pause * (0.75 + Math.random() / 2)));
    }
  };
  run();
  return () => {
    ended = true;
    running?.abort();
  };
}

function open(path, last, signal) {
  const headers = { Accept: "text/event-stream" };
  const token = current();
  if (token) headers.Authorization = `Bearer ${token}`;
  if (last !== null) headers["Last-Event-ID"] = String(last);
  return fetch(path, { headers, signal, cache: "no-store", credentials: "omit" });
}

// Reads a response's text: `take` gets each part that ends with `end`, as it comes.
export async function split(body, end, take, heard = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    held += value;
    const parts = held.split(end);
    held = parts.pop();
    for (const part of parts) take(part);
  }
}

async function read(body, running, take) {
  let timer = null;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => running.abort(), SILENCE);
  };
  heard();
  try {
    await split(body, /\r?\n\r?\n/, (part) => deliver(part, take), heard);
  } finally {
    clearTimeout(timer);
  }
}

function deliver(part, take) {
  let event = "message";
  let id = null;
  const data = [];
  for (const line of part.split(/\r?\n/)) {
    const at = line.indexOf(":");
    if (at === 0) continue;
    const name = at < 0 ? line : line.slice(0, at);
    const value = at < 0 ? "" : line.slice(at + 1).replace(/^ /, "");
    if (name === "event") event = value;
    else if (name === "data") data.push(value);
    else if (name === "id") id = value;
  }
  if (!data.length) return;
  let read = null;
  try {
    read = JSON.parse(data.join("\n"));
  } catch {
    return; // A message of a later version, in another form: the next full look at the lists has what it said.
  }
  take(event, read, id);
}
