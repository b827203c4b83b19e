// Starts the page: who is signed in, which view the address names, and when that is drawn anew. Owns the address and the
// drawing; touches the session, the state and the views.

import { get, onSignedOut } from "./api.js";
import { replace } from "./dom.js";
import { listen } from "./keys.js";
import { current, signOut, who } from "./session.js";
import { Shell } from "./shell.js";
import { changed, start, stop } from "./store.js";
import { applyTheme } from "./theme.js";
import { signInPage } from "./views/signin.js";
import { ROUTES } from "./routes.js";

// Pause between two drawings, in milliseconds: a page on the wall need not flicker, and events come in hundreds.
const DRAW_EVERY = 400;

let shell = null;
let view = null;
let drawn = 0;
let timer = null;

// The view that the address names, with what it says: `#/machines?state=failed`.
function address() {
  const [path, query = ""] = (location.hash.replace(/^#/, "") || "/").split("?");
  const parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  return { name: parts[0] ?? "overview", id: parts[1] ?? null, query: new URLSearchParams(query) };
}

function show() {
  if (!shell) return;
  const at = address();
  view?.close?.();
  const make = ROUTES[at.name] ?? ROUTES.missing;
  view = make(at);
  shell.show(at.name, view);
  draw();
}

function draw() {
  timer = null;
  drawn = performance.now();
  performance.mark("draw");
  shell?.update();
  view?.update?.();
  performance.measure("swarmboot update", "draw");
  performance.clearMarks("draw");
}

function drawSoon() {
  if (timer !== null) return;
  timer = setTimeout(() => requestAnimationFrame(draw), Math.max(0, DRAW_EVERY - (performance.now() - drawn)));
}

function signInFirst(why = null) {
  stop();
  signOut();
  view?.close?.();
  view = null;
  shell = null;
  replace(document.body, signInPage(why, open));
  document.title = "Sign in – swarmboot";
  document.querySelector("#token")?.focus();
}

// Opens the page for whoever the token is of.
async function open() {
  try {
    Object.assign(who, await get("/whoami"));
  } catch (error) {
    if (error.status === 401 || error.status === 403) return signInFirst(error.message);
    return signInFirst([error.message, error.hint].filter(Boolean).join(": "));
  }
  shell = new Shell(() => signInFirst());
  replace(document.body, shell.nodes);
  show();
  try {
    await start();
  } catch (error) {
    if (error.status !== 401) signInFirst([error.message, error.hint].filter(Boolean).join(": "));
  }
  return undefined;
}

applyTheme();
onSignedOut((why) => signInFirst(why));
changed(drawSoon);
addEventListener("hashchange", show);
// Times such as `3 min ago` go on without events.
setInterval(drawSoon, 5000);
listen();
if (current()) open();
else signInFirst();
