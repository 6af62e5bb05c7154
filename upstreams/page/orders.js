// The visitor's orders as they are shown, and what can be done with them.

import { jittered } from "./ask.js";
import * as clock from "./clock.js";
import { change, look } from "./order.js";
import { attempt } from "./purchase.js";
import { timeOf } from "./sale.js";
import { isSettled } from "./store.js";
import { has, put, span, text, time } from "./text.js";

/** How often an order is looked up while nothing is expected, and while something is. */
const CALM_PERIOD_MS = 5000;
const PERIOD_MS = 1000;
/** The longest wait after failures; they double it from `PERIOD_MS`. */
const BACKOFF_MAX_MS = 15_000;
/** When the end of the hold is announced. */
const SOON_MS = 60_000;

/** What is said of an order that was released; the edge, unlike the order service, does not say why. */
const ENDS = { expired: "orders.expired", cancelled: "orders.cancelled" };
const TONES = { HELD: "warn", PAID: "good", RELEASED: "" };

/** Shows the orders that `store` keeps in `section`, and looks after those whose story has not ended. */
export class Orders {
  #store;
  #section;
  #announce;
  #isSure;
  /** Order id -> what is on the screen: its elements, and what is known for the moment only. */
  #cards = new Map();
  #timer = 0;
  #isLooking = false;
  #failures = 0;

  /** `announce(text)` says something to who cannot see; `isSure()` asks whether tickets are really given back. */
  constructor({ store, section, announce, isSure }) {
    [this.#store, this.#section, this.#announce, this.#isSure] = [store, section, announce, isSure];
  }

  /** Begins, and goes on whenever the page becomes visible again. */
  watch() {
    document.addEventListener("visibilitychange", () => this.look());
    this.show();
    this.look();
  }

  /** Puts the reader at an order. */
  focus(id) {
    this.#cards.get(id)?.heading.focus();
  }

  /** Brings the screen up to what is kept. */
  show() {
    const orders = this.#store.orders;
    const list = this.#section.querySelector("ol");
    this.#section.hidden = orders.length === 0;
    for (const [id, card] of this.#cards) {
      if (!orders.some((order) => order.order_id === id)) {
        card.item.remove();
        this.#cards.delete(id);
      }
    }
    orders.forEach((order, at) => {
      const card = this.#cards.get(order.order_id) ?? this.#made(order);
      if (list.children[at] !== card.item) {
        list.insertBefore(card.item, list.children[at] ?? null);
      }
      this.#fill(card, order);
    });
  }

  /** Looks up every order whose story has not ended, if anybody looks at the page. */
  async look() {
    clearTimeout(this.#timer);
    if (document.visibilityState === "hidden" || this.#isLooking) {
      return;
    }
    this.#isLooking = true;
    let isSilent = false;
    for (const order of this.#store.orders.filter((order) => !isSettled(order))) {
      const members = await look(order);
      const card = this.#cards.get(order.order_id);
      isSilent ||= members === null;
      if (card) {
        card.isSilent = members === null;
      }
      if (members !== null) {
        this.#learn(order.order_id, members);
      }
    }
    this.#isLooking = false;
    this.#failures = isSilent ? this.#failures + 1 : 0;
    this.show();
    this.#plan();
  }

  #plan() {
    const open = this.#store.orders.filter((order) => !isSettled(order));
    clearTimeout(this.#timer);
    if (open.length === 0 || document.visibilityState === "hidden") {
      return;
    }
    const isEnding = (order) => order.state === "HELD" && left(order) < 2 * PERIOD_MS;
    const isNear = (order) => order.isArriving || order.payment?.state === "pending" || isEnding(order);
    const calm = open.some(isNear) ? PERIOD_MS : CALM_PERIOD_MS;
    // A hold's end is looked up when it comes, not up to a period later.
    const ends = open.filter((order) => order.state === "HELD").map((order) => left(order) + PERIOD_MS / 4);
    const waitMs = this.#failures > 0 ? Math.min(PERIOD_MS * 2 ** this.#failures, BACKOFF_MAX_MS) : calm;
    const soonest = Math.min(...ends.filter((end) => end > 0), jittered(waitMs));
    this.#timer = setTimeout(() => this.look(), soonest);
  }

  #learn(id, members) {
    const before = this.#store.orders.find((order) => order.order_id === id);
    this.#store.update(id, members);
    if (before && members.state && members.state !== before.state) {
      this.#announce(`${text(`orders.${members.state}`)}. ${story({ ...before, ...members })}`);
    }
  }

  #made(order) {
    const item = document.getElementById("order").content.cloneNode(true).firstElementChild;
    const part = (selector) => item.querySelector(selector);
    const card = {
      item,
      article: part("article"),
      heading: part("h3"),
      badge: part(".badge"),
      remaining: part(".remaining"),
      story: part(".story"),
      message: part(".message"),
      pay: part(".pay"),
      cancel: part(".cancel"),
      forget: part(".forget"),
      number: part(".number"),
      /** The name of the text that says how the last press of a button ended, and its values. */
      said: null,
      doing: null,
      isSilent: false,
      leftBefore: Infinity,
    };
    const id = order.order_id;
    card.heading.id = `order-${id}`;
    card.article.setAttribute("aria-labelledby", card.heading.id);
    card.article.dataset.order = id;
    card.pay.addEventListener("click", () => this.#pay(id));
    card.cancel.addEventListener("click", () => this.#cancel(id));
    card.forget.addEventListener("click", () => this.#forget(id));
    this.#cards.set(id, card);
    return card;
  }

  #fill(card, order) {
    const { order_id: id, state, quantity, buyer, payment } = order;
    const isHeld = state === "HELD" && !order.lost;
    const leftMs = left(order);
    const isOverdue = isHeld && leftMs <= 0;
    const isPaying = card.doing === "pay" || payment?.state === "pending";

    put(card.heading, text("orders.name", { count: quantity }));
    put(card.badge, text(order.lost ? "orders.unknown" : isOverdue ? "orders.overdue" : `orders.${state}`));
    card.badge.dataset.tone = card.article.dataset.tone = order.lost ? "" : (TONES[state] ?? "");
    card.article.dataset.state = order.lost ? "UNKNOWN" : state;
    card.remaining.hidden = !isHeld || isOverdue;
    put(card.remaining, text("orders.left", { time: span(leftMs) }));
    put(card.story, story(order));
    put(card.number, buyer ? text("orders.buyer", { id, buyer }) : text("orders.number", { id }));

    const [said, tone] = saying(card, order, isPaying);
    put(card.message, said);
    card.message.dataset.tone = tone;

    card.pay.hidden = card.cancel.hidden = !isHeld || order.isUnpayable === true;
    enable(card.pay, !isPaying && !isOverdue && !order.isArriving && card.doing === null);
    enable(card.cancel, !isPaying && !order.isArriving && card.doing === null);
    card.pay.setAttribute("aria-busy", String(isPaying));
    card.forget.hidden = !isSettled(order) || state === "PAID";
    for (const button of [card.pay, card.cancel, card.forget]) {
      put(button, text(button.dataset.text));
      // One of several orders: the button alone does not say of which.
      button.setAttribute("aria-describedby", card.heading.id);
    }

    if (isHeld && card.leftBefore > SOON_MS && leftMs <= SOON_MS && leftMs > 0 && card.leftBefore !== Infinity) {
      this.#announce(text("orders.soon", { count: 1 }));
    }
    card.leftBefore = leftMs;
  }

  async #pay(id) {
    const order = this.#begun(id, "pay");
    if (!order) {
      return;
    }
    // Kept until the answer is certain, so that no second press, not even after a reload, pays twice.
    const payKey = order.payKey ?? attempt("", 1).key;
    this.#store.update(id, { payKey });
    const { members, problem, status } = await change("pay", order, { "Idempotency-Key": `"${payKey}"` });
    const isCertain = status > 0 && status < 500;
    const news = isCertain ? { ...members, payKey: undefined } : (members ?? {});
    this.#ended(id, news, said(problem, status, "payment.unanswered"));
  }

  async #cancel(id) {
    if (this.#cards.get(id)?.cancel.getAttribute("aria-disabled") === "true" || !(await this.#isSure())) {
      return;
    }
    const order = this.#begun(id, "cancel");
    if (!order) {
      return;
    }
    const { members, problem, status } = await change("cancel", order);
    this.#ended(id, members ?? {}, said(problem, status, "trouble.unanswered"));
  }

  #forget(id) {
    this.#store.forget(id);
    this.show();
    const next = this.#section.hidden ? document.getElementById("submit") : this.#section.querySelector("h3");
    next.focus();
  }

  /** Marks an order as being paid or cancelled; nothing if that cannot be now. */
  #begun(id, doing) {
    const card = this.#cards.get(id);
    const order = this.#store.orders.find((order) => order.order_id === id);
    if (!card || !order || card[doing].getAttribute("aria-disabled") === "true") {
      return null;
    }
    [card.doing, card.said] = [doing, null];
    this.show();
    return order;
  }

  #ended(id, members, said) {
    const card = this.#cards.get(id);
    const hadFocus = card && [card.pay, card.cancel].includes(document.activeElement);
    this.#learn(id, members);
    if (card) {
      [card.doing, card.said] = [null, said];
      this.show();
      if (hadFocus && document.activeElement?.hidden !== false) {
        card.heading.focus();
      }
    }
    this.look();
  }
}

/** How long an order may still be paid, in milliseconds. */
function left(order) {
  return (timeOf(order.expires_at) ?? 0) - clock.now();
}

/** What an order's state means. */
function story(order) {
  const payment = order.payment?.state;
  if (order.lost) {
    return text("orders.lost");
  }
  if (order.state === "PAID") {
    return text(order.retaken ? "orders.retaken" : "orders.paid");
  }
  if (order.state === "RELEASED") {
    const isOwed = payment === "refund_due" || payment === "refunded";
    return text(isOwed ? `payment.${payment}` : (ENDS[order.reason] ?? "orders.released"));
  }
  if (order.isUnpayable) {
    return text("orders.unpayable");
  }
  if (left(order) <= 0) {
    return text("orders.late");
  }
  return text("orders.held", { time: time(timeOf(order.expires_at), clock.now()) });
}

/** The text below the story, and its tone. */
function saying(card, order, isPaying) {
  const isHeld = order.state === "HELD" && !order.lost;
  if (isPaying) {
    return [text("orders.paying"), ""];
  }
  if (card.doing === "cancel") {
    return [text("orders.cancelling"), ""];
  }
  if (card.said && (isHeld || card.said.isLasting)) {
    return [text(card.said.name, card.said.values), "bad"];
  }
  if (card.isSilent && !isSettled(order)) {
    return [text("orders.silent"), "warn"];
  }
  if (isHeld && order.isArriving) {
    return [text("orders.arriving"), ""];
  }
  return isHeld && order.payment?.state === "declined" ? [text("payment.declined"), "bad"] : ["", ""];
}

/** Which text tells of a problem with paying or cancelling. */
function said(problem, status, unanswered) {
  if (problem === null) {
    return null;
  }
  if (status === 0) {
    return { name: unanswered, values: {} };
  }
  const name = `trouble.${problem}`;
  return { name: has(name) ? name : "trouble.other", values: { status } };
}

/** A button that cannot be used now stays where the focus is, and says so. */
function enable(button, isEnabled) {
  button.setAttribute("aria-disabled", String(!isEnabled));
}
