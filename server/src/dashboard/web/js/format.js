// Core: numbers and times as people read them. Units are those of the command line: KiB and MiB for what is stored,
// Mbit/s for what lines carry. Touches nothing.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

// Bytes, with three digits: `4.32 GiB`.
export function bytes(count) {
  let value = Number(count) || 0;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${digits(value, unit)} ${UNITS[unit]}`;
}

function digits(value, unit = 1) {
  if (unit === 0) return value.toFixed(0);
  if (value < 10) return value.toFixed(2);
  return value < 100 ? value.toFixed(1) : value.toFixed(0);
}

// Bytes per second as bits per second; a dash for none.
export function rate(perSecond) {
  if (!(perSecond > 0)) return "–";
  return bits(perSecond * 8);
}

// Bits per second.
export function bits(count) {
  const value = Number(count) || 0;
  if (value >= 1e9) return `${digits(value / 1e9)} Gbit/s`;
  if (value >= 1e6) return `${digits(value / 1e6)} Mbit/s`;
  return `${digits(value / 1e3)} kbit/s`;
}

// A limit as it is typed, `20M` or `1.5G`, as bits per second; null when it is none.
export function bitsFrom(text) {
  const found = /^\s*(\d+(?:\.\d+)?)\s*([kKmMgG]?)(?:bit\/s)?\s*$/.exec(text);
  if (!found) return null;
  const by = { "": 1, k: 1e3, m: 1e6, g: 1e9 }[found[2].toLowerCase()];
  return Math.round(Number(found[1]) * by);
}

// Milliseconds as a span: `41 s`, `3 min 20 s`, `2 h 05 min`.
export function span(millis) {
  if (!Number.isFinite(millis)) return "–";
  if (millis < 1000) return millis < 100 ? `${Math.max(0, Math.round(millis))} ms` : `${(millis / 1000).toFixed(1)} s`;
  const seconds = Math.round(millis / 1000);
  if (seconds < 60) return `${millis < 10_000 ? (millis / 1000).toFixed(1) : seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds % 60 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} days`;
}

// How long ago a time was.
export function ago(time, now = Date.now()) {
  if (!time) return "never";
  const millis = now - Date.parse(time);
  if (millis < 5000) return "now";
  const seconds = Math.floor(millis / 1000);
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} days ago`;
}

// A time of day, with the date where that is another day.
export function clock(time, now = new Date()) {
  const at = new Date(time);
  const hours = at.toLocaleTimeString([], { hour12: false });
  return at.toDateString() === now.toDateString() ? hours : `${date(at)} ${hours}`;
}

// A date and time, to the second.
export function when(time) {
  if (!time) return "–";
  const at = new Date(time);
  return `${date(at)} ${at.toLocaleTimeString([], { hour12: false })}`;
}

function date(at) {
  const two = (number) => String(number).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

// A part of a whole in whole percent; 99 until it is all.
export function percent(done, total) {
  if (!(total > 0)) return 0;
  return done >= total ? 100 : Math.min(99, Math.floor((done * 100) / total));
}

// A count with its noun: `1 machine`, `1,204 machines`.
export function count(number, noun, plural = `${noun}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? noun : plural}`;
}

// How many copies of `wire` bytes `sent` is: `1.04`.
export function copies(sent, wire) {
  return wire > 0 ? (sent / wire).toFixed(2) : "–";
}

// A hash, cut to its first twelve digits as in the log.
export function short(hash) {
  return String(hash).slice(0, 12);
}

// Compares names as people order them: `r2` before `r10`.
const collator = new Intl.Collator("en", { numeric: true });
export const byName = (one, other) => collator.compare(one, other);
