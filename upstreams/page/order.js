// An order as the shop keeps it: looked up, paid, cancelled. Knows nothing of how it is shown.

import { ask, jittered, sleep } from "./ask.js";

/** The most times that paying or cancelling is asked while the outcome is unknown. */
const TRIES_MAX = 4;
const WAIT_MS = 1000;
/** How long a payment may take to be answered. */
const PATIENCE_MS = 30_000;

/** What an order is made of. */
const MEMBERS = [
  "order_id", "sale", "buyer", "quantity", "state", "expires_at", "reason", "retaken", "payment", "updated_at",
];

const isOrder = (body) => typeof body?.order_id === "string" && typeof body.state === "string";

/**
 * What is new of an order, as members to be kept, or null if nobody answered.
 *
 * The order service is asked first, for only it knows of payments. Where it does not keep orders, or does not answer,
 * the edge is asked, which reads the ledger.
 */
export async function look({ order_id: id, sale }) {
  const { status, body, problem } = await ask("GET", `/orders/${id}`);
  if (status === 200 && isOrder(body)) {
    return { ...body, isArriving: false, isUnpayable: false, lost: false };
  }
  if (status === 202) {
    return { isArriving: true };
  }
  const atEdge = await ask("GET", `/sales/${sale}/orders/${id}`);
  if (atEdge.status === 200 && isOrder(atEdge.body)) {
    // An answer that is neither an order nor a fault came from a backend that keeps none.
    const isUnpayable = status >= 200 && status < 500 && problem === null;
    return { ...atEdge.body, isArriving: false, isUnpayable, lost: false };
  }
  return atEdge.problem === "order-unknown" ? { lost: true } : null;
}

/**
 * Asks to `pay` or `cancel`. Gives `{ members, problem, status }`: what is new of the order (null if unknown), and what
 * kept it from being done (null if nothing did). Without an answer, status is 0.
 */
export async function change(operation, { order_id: id }, headers = {}) {
  for (let tried = 1; ; tried += 1) {
    const answer = await ask("POST", `/orders/${id}/${operation}`, { headers, timeoutMs: PATIENCE_MS });
    const { status, body, problem, retryMs } = answer;
    const isFault = status === 0 || status >= 500;
    if (!isFault || tried === TRIES_MAX) {
      // A refusal may carry the order as it stands, among the problem's own members or as one of them.
      const order = [body, body?.order].find(isOrder) ?? null;
      const known = order && MEMBERS.filter((name) => name in order);
      const members = order && Object.fromEntries(known.map((name) => [name, order[name]]));
      const isDone = status >= 200 && status < 300 && members !== null;
      return { members, status, problem: isDone ? null : (problem ?? "other") };
    }
    await sleep(jittered(Math.max(retryMs, WAIT_MS * tried)));
  }
}
