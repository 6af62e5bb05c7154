// Every word of the page, in the visitor's language.

import en from "./en.js";
import zh from "./zh.js";

/** The languages: their texts, and the name under which browsers know them. */
const LANGUAGES = { en: { texts: en, tag: "en" }, zh: { texts: zh, tag: "zh-Hans" } };

let language = "en";

/** The language of this browser: the first that it names and we have. */
export function preferred() {
  const named = (navigator.languages ?? [navigator.language]).map((tag) => tag.toLowerCase().split("-")[0]);
  return named.find((name) => Object.hasOwn(LANGUAGES, name)) ?? "en";
}

/** Whether there are texts in this language. */
export function isKnown(name) {
  return typeof name === "string" && Object.hasOwn(LANGUAGES, name);
}

/** Speaks this language from now on, and says so to the browser and to whoever reads the page aloud. */
export function speak(name) {
  language = name;
  document.documentElement.lang = LANGUAGES[name].tag;
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = text(element.dataset.text);
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", text(element.dataset.label));
  }
  for (const template of document.querySelectorAll("template")) {
    for (const element of template.content.querySelectorAll("[data-text]")) {
      element.textContent = text(element.dataset.text);
    }
  }
}

/**
 * The text of this name, with `{word}` replaced by the value of that name. A text with forms is chosen by `count`. A
 * name that has no text, such as a state that only newer servers know, is shown as it is.
 */
export function text(name, values = {}) {
  const { texts, tag } = LANGUAGES[language];
  let found = texts[name] ?? name;
  if (typeof found === "object") {
    found = found[new Intl.PluralRules(tag).select(values.count)] ?? found.other;
  }
  return found.replace(/\{(\w+)\}/g, (_, word) => {
    const value = values[word];
    return typeof value === "number" ? value.toLocaleString(tag) : String(value ?? "");
  });
}

/** Whether there is such a text. */
export function has(name) {
  return Object.hasOwn(en, name);
}

/** Changes an element's text only if it is another, so that nothing is read aloud again. */
export function put(element, words) {
  if (element.textContent !== words) {
    element.textContent = words;
  }
}

/** A point in time as this visitor writes it, with the date unless it is today. */
export function time(atMs, nowMs) {
  const isToday = new Date(atMs).toDateString() === new Date(nowMs).toDateString();
  const format = isToday ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "medium" };
  return new Intl.DateTimeFormat(LANGUAGES[language].tag, format).format(atMs);
}

/** A span of time as a clock shows it: 4:05, 1:04:05, or 2 days 1:04:05. */
export function span(lengthMs) {
  const seconds = Math.max(0, Math.ceil(lengthMs / 1000));
  const two = (number) => String(number).padStart(2, "0");
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  const hasHours = days + hours > 0;
  const clock = `${hasHours ? `${hours}:${two(minutes)}` : minutes}:${two(seconds % 60)}`;
  return days > 0 ? `${text("sale.days", { count: days })} ${clock}` : clock;
}
