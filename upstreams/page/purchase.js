// A purchase, asked until its outcome is certain, or for so long as is sensible.
//
// It carries an Idempotency-Key, so that however often it is asked, it makes one order at most.

import { ask, headerText, jittered, sleep } from "./ask.js";

/** The most times that one press of the button asks; with the waits between, about a minute where answers take long. */
export const TRIES_MAX = 8;
/** The waits between, by how often was asked before; the last one is for all that follow. */
const WAITS_MS = [500, 1000, 2000, 4000];
/** A sale that opens so soon is waited for: the visitor's countdown was a little early. */
const NEARLY_OPEN_MS = 2000;

/** What the edge refuses although it may sell at any moment; its own request ordered nothing. */
const PASSING = ["busy", "ledger-unavailable", "too-many-requests"];

/** A purchase of `quantity` by `buyer`, with a number that nobody can guess. */
export function attempt(buyer, quantity) {
  // Not `crypto.randomUUID`: that one is for pages that came over TLS.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const key = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { key, buyer, quantity };
}

/**
 * Asks, and asks again. `isResumed` says that it may have been asked before; `report` is told of every wait:
 * `{ tried, isUncertain }`.
 *
 * Gives `{ kind, answer }`, where `kind` is
 * - `ordered`: `answer.body` is the order;
 * - `refused`: there is no order, and asking again as it is makes no sense;
 * - `given-up`: there is no order, but asking again may make one;
 * - `unknown`: nobody knows; the key must be kept.
 */
export async function pursue({ key, buyer, quantity }, { path, isResumed, report }) {
  // The name goes into a header, since a purchase without a body is the one that the edge answers fastest. A real shop
  // has no such field: whatever signs its buyers in sets this header, from the session, in front of the edge.
  const headers = { "Idempotency-Key": `"${key}"`, "X-User-Id": headerText(buyer) };
  let isUncertain = isResumed;
  for (let tried = 1; ; tried += 1) {
    const answer = await ask("POST", `${path}?quantity=${quantity}`, { headers });
    const verdict = judge(answer);
    if (verdict === "ordered" || verdict === "refused") {
      return { kind: verdict, answer };
    }
    // A 503 speaks of its own request only: once one outcome is unknown, no later "not now" makes it known.
    isUncertain ||= verdict === "unknown";
    if (tried === TRIES_MAX) {
      return { kind: isUncertain ? "unknown" : "given-up", answer };
    }
    report({ tried, isUncertain });
    await sleep(jittered(Math.max(answer.retryMs, WAITS_MS[Math.min(tried, WAITS_MS.length) - 1])));
  }
}

function judge({ status, body, problem, retryMs }) {
  if (status >= 200 && status < 300 && typeof body?.order_id === "string") {
    return "ordered";
  }
  const opensNow = problem === "sale-not-open" && retryMs <= NEARLY_OPEN_MS;
  if (PASSING.includes(problem) || status === 429 || opensNow) {
    return "passing";
  }
  // Of a fault without the edge's own words nobody can say what became of the request.
  const isTold = problem !== null && problem !== "outcome-unknown";
  return isTold || (status >= 400 && status < 500 && status !== 408) ? "refused" : "unknown";
}
