// The server's clock. The visitor's own may be wrong by hours, and a sale opens by the server's.

/** How far the two clocks may drift apart between two answers, in milliseconds. */
const DRIFT_MS = 1;

let earliest = -Infinity;
let latest = Infinity;

/**
 * Learns from an answer's `Date`, which is in whole seconds: at some moment between `sentMs` and `receivedMs` (both of
 * `performance.now()`) the server's clock stood within that second. Each answer narrows what the difference between the
 * clocks can be; after a few of them it is known to about the time that an answer takes.
 */
export function learn(date, sentMs, receivedMs) {
  const secondMs = Date.parse(date ?? "");
  if (Number.isNaN(secondMs)) {
    return;
  }
  const [from, to] = [secondMs - receivedMs, secondMs + 1000 - sentMs];
  earliest = Math.max(earliest - DRIFT_MS, from);
  latest = Math.min(latest + DRIFT_MS, to);
  if (earliest > latest) {
    // A clock was set, or this machine slept: what was known is wrong.
    [earliest, latest] = [from, to];
  }
}

/** The server's time in milliseconds since 1970; the visitor's own until the server was first heard. */
export function now() {
  return Number.isFinite(earliest) ? performance.now() + (earliest + latest) / 2 : Date.now();
}
