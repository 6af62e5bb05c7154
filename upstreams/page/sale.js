// The sale as the edge shows it, asked again and again while somebody looks.

import { ask, jittered } from "./ask.js";
import * as clock from "./clock.js";

/** How often a sale is asked for that may change at any moment. */
const PERIOD_MS = 1000;
/** How often one is asked for that will not change soon: long before it opens, and after its end. */
const CALM_PERIOD_MS = 10_000;
/** What is long before. */
const CALM_BEFORE_MS = 60_000;
/** The longest wait after failures; they double it from `PERIOD_MS`. */
const BACKOFF_MAX_MS = 15_000;

/** Asks `GET /sales/{sale}` while the page is visible, and calls `changed` after every answer and every failure. */
export class Sale {
  /** The document as last heard: total, available, state, opens_at, closes_at; null before the first. */
  document = null;
  /** The problem of the last answer, if it had one: `sale-missing`, or `sale-unknown` for what is no sale at all. */
  problem = null;
  /** Failures since the last answer. */
  failures = 0;
  /** When the document came, by `performance.now()`. */
  heardMs = 0;

  #path;
  #changed;
  #timer = 0;
  #isAsking = false;

  constructor(id, changed) {
    this.#path = `/sales/${id}`;
    this.#changed = changed;
  }

  /** Begins, and goes on whenever the page becomes visible again. */
  watch() {
    document.addEventListener("visibilitychange", () => this.ask());
    this.ask();
  }

  /** Asks now, unless nobody looks or an answer is on its way. */
  async ask() {
    clearTimeout(this.#timer);
    if (document.visibilityState === "hidden" || this.#isAsking) {
      return;
    }
    this.#isAsking = true;
    this.#take(await ask("GET", this.#path, { timeoutMs: 5000 }));
    this.#isAsking = false;
    this.#changed();
    if (document.visibilityState !== "hidden") {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.ask(), jittered(this.#waitMs()));
    }
  }

  /** Opening and closing time in milliseconds since 1970, if there are any. */
  get opensMs() {
    return timeOf(this.document?.opens_at);
  }

  get closesMs() {
    return timeOf(this.document?.closes_at);
  }

  /** asking, pending, open, sold_out, paused, closed or missing. It opens by the clock, before an answer says so. */
  get state() {
    if (this.problem !== null) {
      return "missing";
    }
    const state = this.document?.state ?? "asking";
    return state === "pending" && this.opensMs !== null && clock.now() >= this.opensMs ? "open" : state;
  }

  #take(answer) {
    const { status, body, problem, date, sentMs, receivedMs } = answer;
    if (status === 200 && typeof body?.available === "number" && typeof body.state === "string") {
      clock.learn(date, sentMs, receivedMs);
      [this.document, this.problem, this.failures, this.heardMs] = [body, null, 0, receivedMs];
      return;
    }
    this.failures += 1;
    if (problem === "sale-missing") {
      this.problem = problem;
    } else if (status === 404 || (status === 200 && body !== null)) {
      // The edge has no such sale, and whoever answered instead does not speak of one.
      this.problem = "sale-unknown";
    }
  }

  #waitMs() {
    if (this.failures > 0) {
      return Math.min(PERIOD_MS * 2 ** this.failures, BACKOFF_MAX_MS);
    }
    const opensLater = this.state === "pending" && this.opensMs !== null && this.opensMs - clock.now() > CALM_BEFORE_MS;
    return opensLater || this.state === "closed" ? CALM_PERIOD_MS : PERIOD_MS;
  }
}

/** An RFC 3339 time in milliseconds since 1970; null if it is none. */
export function timeOf(text) {
  const atMs = Date.parse(text ?? "");
  return Number.isNaN(atMs) ? null : atMs;
}
