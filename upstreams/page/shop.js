// The page where people buy: wires the sale, the purchase and the orders to what is on the screen.

import { sleep } from "./ask.js";
import * as clock from "./clock.js";
import { Orders } from "./orders.js";
import { TRIES_MAX, attempt, pursue } from "./purchase.js";
import { Sale } from "./sale.js";
import { Store, choice, keeps } from "./store.js";
import { has, isKnown, preferred, put, span, speak, text, time } from "./text.js";

/** The most tickets of one purchase; the page's own limit. */
const QUANTITY_MAX = 100;
/** The most bytes of a buyer's id; the edge's limit. */
const BUYER_BYTES_MAX = 128;
/** How often clocks on the screen are brought up to date. */
const TICK_MS = 250;
/** So many failures in a row are a silence worth telling. */
const SILENT_FAILURES = 3;
/** The countdown is read aloud at these times, and not in between. */
const SPOKEN_MS = [600_000, 60_000, 10_000];

const TONES = { open: "good", sold_out: "bad", closed: "bad", missing: "bad", pending: "warn", paused: "warn" };

const $ = (id) => document.getElementById(id);
const { sale: saleId, buyPath } = document.body.dataset;
const store = new Store(saleId);
const sale = new Sale(saleId, show);
const orders = new Orders({ store, section: $("orders"), announce, isSure });

/** What the message under the form says: its text's name, its values, its tone, and the held order it speaks of. */
let said = null;
let isBuying = false;
let tries = 0;
let stateBefore = "asking";
let untilBefore = Infinity;

start();

function start() {
  speak(isKnown(choice.get("language")) ? choice.get("language") : preferred());
  $("buyer").value = choice.get("name") ?? "";
  $("unkept").hidden = keeps();
  for (const element of document.querySelectorAll(".skip, .languages, #sale, #buy")) {
    element.hidden = false;
  }
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => {
      choice.set("language", button.dataset.language);
      speak(button.dataset.language);
      show();
      orders.show();
    });
  }
  $("purchase").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  $("again").addEventListener("click", () => resume());
  $("fewer").addEventListener("click", () => step(-1));
  $("more").addEventListener("click", () => step(1));
  $("quantity").addEventListener("input", show);
  $("buyer").addEventListener("change", () => choice.set("name", buyer()));
  store.watch(() => orders.show());
  setInterval(tick, TICK_MS);
  show();
  sale.watch();
  orders.watch();
  if (store.attempt) {
    resume();
  }
}

/** Clocks move, and what depends on them. */
function tick() {
  if (document.visibilityState === "hidden") {
    return;
  }
  show();
  orders.show();
}

// ---- the sale ----

function show() {
  const state = sale.state;
  const { available, total } = sale.document ?? {};
  const untilMs = state === "pending" && sale.opensMs !== null ? sale.opensMs - clock.now() : Infinity;

  put($("state"), text(`state.${state}`));
  $("state").dataset.tone = TONES[state] ?? "";
  $("sale").dataset.state = state;
  $("countdown").hidden = untilMs === Infinity;
  put($("countdown"), untilMs === Infinity ? "" : span(untilMs));
  const isCounted = sale.document !== null && state !== "missing";
  put($("left"), isCounted ? text("sale.left", { available, total }) : state === "asking" ? text("sale.asking") : "");
  $("share").hidden = !isCounted;
  $("share").value = isCounted && total > 0 ? available / total : 0;
  $("opens").hidden = untilMs === Infinity;
  put($("opens"), untilMs === Infinity ? "" : text("sale.opens", { time: time(sale.opensMs, clock.now()) }));
  put($("note"), note(state));
  const isSilent = sale.failures >= SILENT_FAILURES && state !== "missing";
  $("contact").hidden = !isSilent;
  if (isSilent) {
    const seconds = Math.round((performance.now() - sale.heardMs) / 1000);
    put($("contact"), sale.document ? text("sale.silent", { seconds }) : text("sale.unheard"));
  }
  document.title = text("sale.title", { state: text(`state.${state}`), sale: saleId });
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(document.documentElement.lang === button.lang));
  }

  showForm(state);
  speakUp(state, untilMs);
}

function note(state) {
  if (state === "sold_out") {
    return text("sale.back");
  }
  const hasEnd = state === "open" && sale.closesMs !== null;
  return hasEnd ? text("sale.until", { time: time(sale.closesMs, clock.now()) }) : "";
}

/** Says to who cannot see what others see change: the state, and some points of the countdown, never each second. */
function speakUp(state, untilMs) {
  if (state !== stateBefore) {
    const isFirst = stateBefore === "asking";
    stateBefore = state;
    if (!isFirst) {
      announce(text(`state.${state}`));
      if (state === "open" && sale.document.state === "pending") {
        // The countdown has ended; what the edge says is asked for now, but not by everybody in the same instant.
        sleep(Math.random() * 300).then(() => sale.ask());
      }
      if (state === "open" && ["bad", "warn"].includes(said?.tone) && !isBuying && store.attempt === null) {
        // Why nothing could be bought is a thing of the past.
        say(null);
      }
    }
  }
  if (SPOKEN_MS.some((atMs) => untilBefore > atMs && untilMs <= atMs) && untilBefore !== Infinity) {
    announce(text("sale.opens_in", { time: span(untilMs) }));
  }
  untilBefore = untilMs;
}

// ---- the purchase ----

function showForm(state) {
  const count = quantity() ?? 1;
  const isOpen = state === "open";
  const isUnknown = store.attempt !== null && !isBuying;
  const button = $("submit");
  const unbuyable = isBuying ? "buy.submit_busy" : `buy.submit_${state}`;
  put(button, isOpen && !isBuying ? text("buy.submit", { count }) : text(unbuyable));
  button.setAttribute("aria-disabled", String(!isOpen || isBuying || isUnknown));
  button.setAttribute("aria-busy", String(isBuying));
  $("again").hidden = !isUnknown;
  if (said?.orderId && !store.orders.some((order) => order.order_id === said.orderId && order.state === "HELD")) {
    said = null;
  }
  put($("message"), said ? text(said.name, filled(said.values)) : "");
  $("message").dataset.tone = said?.tone ?? "";
  $("progress").hidden = tries === 0;
  put($("progress"), tries === 0 ? "" : text("buy.tries", { tried: tries, most: TRIES_MAX }));
}

/** The values of a text; one that is itself a text is named as `{ name, values }`. */
function filled(values = {}) {
  return Object.fromEntries(
    Object.entries(values).map(([word, value]) => [word, value?.name ? text(value.name, value.values) : value]),
  );
}

function say(name, values = {}, tone = "", orderId = null) {
  said = name === null ? null : { name, values, tone, orderId };
  show();
}

async function submit() {
  if (isBuying) {
    return;
  }
  if (store.attempt) {
    // Another tab, or an earlier press, has a purchase whose outcome is unknown: that one comes first.
    await resume();
    return;
  }
  if (sale.state !== "open") {
    tellWhyNot();
    return;
  }
  if (!isValid()) {
    return;
  }
  choice.set("name", buyer());
  const purchase = attempt(buyer(), quantity());
  store.begin(purchase);
  say("buy.asked", { count: purchase.quantity });
  await buy(purchase, false);
}

/** Goes on with a purchase whose answer was never seen. */
async function resume() {
  const purchase = store.attempt;
  if (isBuying || !purchase) {
    return;
  }
  if ($("again") === document.activeElement) {
    $("submit").focus();
  }
  say("buy.resumed");
  await buy(purchase, true);
}

async function buy(purchase, isResumed) {
  isBuying = true;
  show();
  const report = ({ tried, isUncertain }) => {
    tries = tried;
    say(isUncertain ? "buy.retry_unknown" : "buy.retry", {}, "warn");
  };
  const { kind, answer } = await pursue(purchase, { path: buyPath, isResumed, report });
  [isBuying, tries] = [false, 0];
  if (kind === "ordered") {
    const order = answer.body;
    store.ordered(purchase.key, { ...order, sale: order.sale ?? saleId, isArriving: true });
    orders.show();
    say(isResumed ? "buy.done_again" : "buy.done", {}, "good", order.order_id);
    orders.focus(order.order_id);
    orders.look();
  } else if (kind === "unknown") {
    say("buy.still_unknown", {}, "warn");
  } else {
    store.end(purchase.key);
    const refusal = refused(answer);
    kind === "refused" ? say(refusal.name, refusal.values, "bad") : say("buy.given_up", { reason: refusal }, "bad");
  }
  sale.ask();
}

/** Which text tells of a refusal. */
function refused({ status, body, problem }) {
  const name = `refusal.${problem}`;
  const { left: count, limit, have, field } = body ?? {};
  return has(name) ? { name, values: { count, limit, have, field } } : { name: "refusal.other", values: { status } };
}

/** Somebody presses the button although nothing can be bought. */
function tellWhyNot() {
  const reasons = {
    pending: "refusal.sale-not-open",
    sold_out: "refusal.sold-out",
    paused: "refusal.sale-paused",
    closed: "refusal.sale-closed",
    missing: "refusal.sale-missing",
  };
  if (sale.state === "pending" && sale.opensMs !== null) {
    say("sale.opens_in", { time: span(sale.opensMs - clock.now()) }, "warn");
  } else {
    say(reasons[sale.state] ?? "sale.asking", {}, "warn");
  }
}

function isValid() {
  const name = buyer();
  const isTooLong = new TextEncoder().encode(name).length > BUYER_BYTES_MAX;
  const faults = [
    ["buyer", name === "" ? "buy.name_missing" : isTooLong ? "buy.name_long" : null],
    ["quantity", quantity() === null ? "buy.quantity_wrong" : null],
  ];
  for (const [id, fault] of faults) {
    $(id).setAttribute("aria-invalid", String(fault !== null));
    $(`${id}-fault`).hidden = fault === null;
    put($(`${id}-fault`), fault === null ? "" : text(fault));
  }
  const first = faults.find(([, fault]) => fault !== null);
  if (first) {
    $(first[0]).focus();
  }
  return !first;
}

/** The name without what no header carries. */
function buyer() {
  return $("buyer").value.replace(/\p{Cc}/gu, " ").trim();
}

/** The wanted number of tickets; null if what stands there is none. */
function quantity() {
  const given = $("quantity").value.trim();
  const number = /^\d{1,3}$/.test(given) ? Number(given) : 0;
  return number >= 1 && number <= QUANTITY_MAX ? number : null;
}

function step(by) {
  $("quantity").value = String(Math.min(QUANTITY_MAX, Math.max(1, (quantity() ?? 1) + by)));
  show();
  announce(text("orders.name", { count: quantity() }));
}

// ---- saying and asking ----

function announce(words) {
  put($("announcer"), "");
  put($("announcer"), words);
}

/** Asks whether tickets are really given back; Escape means no. */
function isSure() {
  const dialog = $("sure");
  return new Promise((resolve) => {
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
    // The safe choice. `autofocus` would also be tried when the page loads, while the dialog is closed.
    dialog.querySelector("[value=no]").focus();
  });
}
