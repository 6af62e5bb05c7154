// One request to the shop, and what came of it.

const PROBLEM = "urn:spikegate:problem:";

/**
 * Asks, and never throws.
 *
 * Gives `status` (0 if there was no answer), `body` (the JSON, or null), `problem` (the NAME of its problem type, or
 * null), `retryMs` (from `Retry-After`, or 0), `date` (the header), and when it was sent and answered, by
 * `performance.now()`.
 */
export async function ask(method, path, { headers = {}, timeoutMs = 10_000 } = {}) {
  const sentMs = performance.now();
  try {
    const signal = AbortSignal.timeout(timeoutMs);
    const response = await fetch(path, { method, headers, cache: "no-store", signal });
    const receivedMs = performance.now();
    const body = parsed(await response.text());
    const isProblem = typeof body?.type === "string" && body.type.startsWith(PROBLEM);
    const problem = isProblem ? body.type.slice(PROBLEM.length) : null;
    const seconds = Number(response.headers.get("Retry-After") ?? 0);
    const retryMs = Number.isFinite(seconds) ? Math.max(0, seconds) * 1000 : 0;
    const date = response.headers.get("Date");
    return { status: response.status, body, problem, retryMs, date, sentMs, receivedMs };
  } catch {
    return { status: 0, body: null, problem: null, retryMs: 0, date: null, sentMs, receivedMs: performance.now() };
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Waits. */
export function sleep(timeMs) {
  return new Promise((resolve) => setTimeout(resolve, timeMs));
}

/** Between 75 % and 125 % of a time: whoever waits together does not come back together. */
export function jittered(timeMs) {
  return timeMs * (0.75 + Math.random() / 2);
}

/** What a header may carry: the name's bytes in UTF-8, which `fetch` wants as one character each. */
export function headerText(name) {
  return String.fromCharCode(...new TextEncoder().encode(name));
}
