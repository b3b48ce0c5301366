// The language of the page, and numbers, sizes and times as it writes them.

import { TEXTS } from "./texts.js";

let chosen = "en";

/** The languages there are, and what each calls itself. */
export const LANGUAGES = { en: "English", zh: "中文" };

/** The first language of `wishes` (as browsers name them) that there is. */
export function firstKnown(wishes) {
  for (const wish of wishes) {
    const code = wish.toLowerCase().split("-")[0];
    if (Object.hasOwn(LANGUAGES, code)) return code;
  }
  return "en";
}

export const language = () => chosen;

export function setLanguage(code) {
  chosen = Object.hasOwn(TEXTS, code) ? code : "en";
}

/** The text `key`; `{name}` in it becomes `values.name`. */
export function t(key, values = {}) {
  const text = TEXTS[chosen][key] ?? TEXTS.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (Object.hasOwn(values, name) ? String(values[name]) : whole));
}

/** The text of one of the server's words, such as `verdict_slow`; the word itself where there is none. */
export const word = (kind, value) => TEXTS[chosen][`${kind}_${String(value).replace(/\W/g, "_")}`] ?? value;

/** A count, such as 12,345. */
export const number = (value) => Math.round(value).toLocaleString(chosen === "zh" ? "zh-CN" : "en");

/** Bytes, such as 4.2 GiB. */
export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let at = 0;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at++;
  }
  return `${at && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[at]}`;
}

/** Tokens in a second, such as 43 or 7.2; "" where nothing was measured. */
export function rate(tokS) {
  if (tokS === null || tokS === undefined) return "";
  return tokS >= 20 ? number(tokS) : tokS.toPrecision(2).replace(/\.0$/, "");
}

/** A length of time, such as 0.4 s, 12 s or 3 min. */
export function duration(seconds) {
  if (seconds < 0.095) return t("seconds", { count: Math.max(seconds, 0.01).toFixed(2) });
  if (seconds < 10) return t("seconds", { count: seconds.toFixed(1) });
  if (seconds < 100) return t("seconds", { count: Math.round(seconds) });
  if (seconds < 5400) return t("minutes", { count: Math.round(seconds / 60) });
  return t("hours", { count: Math.round(seconds / 3600) });
}

/** Which group of a list of conversations a day belongs to: the key of its text. */
export function dayGroup(date, now = new Date()) {
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate());
  const days = Math.ceil((midnight - date) / 86_400_000);
  if (days <= 0) return "today";
  if (days === 1) return "yesterday";
  return days <= 7 ? "lastWeek" : "earlier";
}

export const dateText = (date) =>
  date.toLocaleString(chosen === "zh" ? "zh-CN" : "en", { dateStyle: "medium", timeStyle: "short" });
