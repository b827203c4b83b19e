// Core: rates of counts that grow, by name, smoothed over some seconds, with the last minutes kept for a line. Touches
// the clock only where none is given.

// Weight of what is new, for a sample of one second.
const NEW = 0.3;
// A count that nobody spoke of for so long has no rate, in milliseconds.
const SILENT = 15_000;
// How many samples of a line are kept.
const KEPT = 120;

export class Meter {
  #counts = new Map();

  // The count of `name` is `value`, at `now` in milliseconds. A smaller value than before begins anew.
  at(name, value, now = Date.now()) {
    const known = this.#counts.get(name);
    if (!known || value < known.value) {
      this.#counts.set(name, { value, at: now, rate: 0, line: known?.line ?? [] });
      return;
    }
    const seconds = (now - known.at) / 1000;
    if (seconds < 0.4) return;
    const rate = (value - known.value) / seconds;
    const weight = known.rate === 0 ? 1 : 1 - (1 - NEW) ** Math.min(seconds, 10);
    known.rate += (rate - known.rate) * weight;
    known.line.push(known.rate);
    if (known.line.length > KEPT) known.line.shift();
    Object.assign(known, { value, at: now });
  }

  // Bytes per second; 0 while nothing is known.
  rate(name, now = Date.now()) {
    const known = this.#counts.get(name);
    return known && now - known.at < SILENT ? known.rate : 0;
  }

  // The last rates, oldest first.
  line(name) {
    return this.#counts.get(name)?.line ?? [];
  }
}

// Milliseconds until `left` bytes have come at `rate`; infinite while nothing comes.
export function remaining(left, rate) {
  return rate > 0 ? (left / rate) * 1000 : Infinity;
}
