// What must outlive this page: the purchase under way, the orders, and what the visitor chose.
//
// It is written before the first request of a purchase leaves, so that neither a reload nor a crash between request and
// answer loses an order. Every change reads what is there first, since another tab may have written.

/** The most orders that are kept; the oldest that are settled make room. */
const ORDERS_MAX = 20;

/** What could not be stored: memory has to do. */
const memory = new Map();

function read(name) {
  try {
    return memory.get(name) ?? localStorage.getItem(name);
  } catch {
    return null;
  }
}

function write(name, value) {
  try {
    localStorage.setItem(name, value);
    memory.delete(name);
  } catch {
    // Full or forbidden: `keeps` says so to the visitor.
    memory.set(name, value);
  }
}

/** Whether what is stored will be there after a reload. */
export function keeps() {
  try {
    localStorage.setItem("spikegate:probe", "1");
    localStorage.removeItem("spikegate:probe");
    return true;
  } catch {
    return false;
  }
}

/** A choice of the visitor's: `name` or `language`. */
export const choice = {
  get: (name) => read(`spikegate:${name}`),
  set: (name, value) => write(`spikegate:${name}`, value),
};

/** Whether an order's story has ended, so that nothing more is to be asked. */
export function isSettled(order) {
  const owed = ["pending", "refund_due"].includes(order.payment?.state);
  return order.lost === true || (order.state !== "HELD" && !owed);
}

/** What is kept of one sale: `attempt` (a purchase without its answer: key, buyer, quantity; or null) and `orders`. */
export class Store {
  #name;

  constructor(sale) {
    this.#name = `spikegate:sale:${sale}`;
  }

  get attempt() {
    return this.#read().attempt;
  }

  get orders() {
    return this.#read().orders;
  }

  /** A purchase begins. */
  begin(attempt) {
    this.#write({ ...this.#read(), attempt });
  }

  /** The purchase of this key was refused for good. */
  end(key) {
    const kept = this.#read();
    if (kept.attempt?.key === key) {
      this.#write({ ...kept, attempt: null });
    }
  }

  /** The purchase of this key has an order: in one write, so that there is always the one or the other. */
  ordered(key, order) {
    const kept = this.#read();
    const attempt = kept.attempt?.key === key ? null : kept.attempt;
    const others = kept.orders.filter((other) => other.order_id !== order.order_id);
    this.#write({ attempt, orders: trimmed([order, ...others]) });
  }

  /** Changes what is known of an order; one that is not kept stays away. */
  update(id, members) {
    const kept = this.#read();
    const orders = kept.orders.map((order) => (order.order_id === id ? { ...order, ...members } : order));
    this.#write({ ...kept, orders });
  }

  /** Forgets an order. */
  forget(id) {
    const kept = this.#read();
    this.#write({ ...kept, orders: kept.orders.filter((order) => order.order_id !== id) });
  }

  /** Calls `changed` when another tab has written. */
  watch(changed) {
    addEventListener("storage", (event) => {
      if (event.key === this.#name || event.key === null) {
        changed();
      }
    });
  }

  #read() {
    try {
      const { attempt, orders } = JSON.parse(read(this.#name) ?? "{}");
      const isPurchase = typeof attempt?.key === "string" && typeof attempt.buyer === "string" && attempt.quantity >= 1;
      const isOrder = (order) => typeof order?.order_id === "string" && typeof order.expires_at === "string";
      return { attempt: isPurchase ? attempt : null, orders: Array.isArray(orders) ? orders.filter(isOrder) : [] };
    } catch {
      return { attempt: null, orders: [] };
    }
  }

  #write(kept) {
    write(this.#name, JSON.stringify(kept));
  }
}

/** The newest orders, settled ones leaving first. */
function trimmed(orders) {
  const kept = [...orders];
  while (kept.length > ORDERS_MAX) {
    const at = kept.findLastIndex(isSettled);
    kept.splice(at < 0 ? kept.length - 1 : at, 1);
  }
  return kept;
}
