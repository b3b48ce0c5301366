// Both languages have the same texts with the same gaps, and the page uses no other.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { dayGroup, duration, firstKnown, rate, setLanguage, size, t, word } from "../../../src/bendi/server/page/language.js";
import { TEXTS } from "../../../src/bendi/server/page/texts.js";

const FOLDER = new URL("../../../src/bendi/server/page/", import.meta.url);
const gaps = (text) => (text.match(/\{\w+\}/g) ?? []).sort();

test("the same keys", () => assert.deepEqual(Object.keys(TEXTS.zh).sort(), Object.keys(TEXTS.en).sort()));

test("the same gaps", () => {
  for (const key of Object.keys(TEXTS.en)) assert.deepEqual(gaps(TEXTS.zh[key]), gaps(TEXTS.en[key]), key);
});

test("Chinese texts are Chinese", () => {
  const international = /^[\W\d_]*(?:\{\w+\}|[\W\d_]|tok\/s|LM Studio|Ollama|token)*$/;
  for (const [key, text] of Object.entries(TEXTS.zh)) {
    assert.ok(/[\u4e00-\u9fff]/.test(text) || international.test(text), `${key}: ${text}`);
  }
});

test("every text that is used exists, and every text is used", () => {
  const source = readdirSync(FOLDER).filter((name) => name.endsWith(".js") && name !== "texts.js").map((name) => readFileSync(new URL(name, FOLDER), "utf8")).join("\n");
  const used = new Set([...source.matchAll(/"(\w+)"|`(\w+)_\$/g)].map((found) => found[1] ?? found[2]));
  for (const [, key] of source.matchAll(/\bt\(\s*"(\w+)"/g)) assert.ok(key in TEXTS.en, `${key} is not in texts.js`);
  const words = /^(?:origin|thinking|verdict|use)_/;
  for (const key of Object.keys(TEXTS.en)) assert.ok(used.has(key) || words.test(key), `${key} is not used`);
});

test("values are put in as they are, also when they look like gaps", () => {
  setLanguage("en");
  assert.equal(t("deleteText", { title: "{title} $& <b>" }), "“{title} $& <b>” will be deleted for good, also for the terminal. It cannot be brought back.");
  assert.equal(t("tokens", {}), "{count} tokens");
  assert.equal(word("origin", "hub cache"), "of the Hugging Face cache");
  assert.equal(word("origin", "something new"), "something new");
});

test("the browser's wishes in their order", () => {
  assert.equal(firstKnown(["fr-FR", "zh-TW", "en"]), "zh");
  assert.equal(firstKnown(["de", "EN-gb"]), "en");
  assert.equal(firstKnown(["de"]), "en");
});

test("sizes, rates and times", () => {
  setLanguage("en");
  assert.deepEqual([size(0), size(1023), size(1536), size(5_027_783_488), size(200 * 2 ** 20)], ["0 B", "1023 B", "1.5 KiB", "4.7 GiB", "200 MiB"]);
  assert.deepEqual([rate(null), rate(812.3), rate(43.2), rate(7.26), rate(7.0), rate(0.512)], ["", "812", "43", "7.3", "7", "0.51"]);
  assert.deepEqual([duration(0.031), duration(0.42), duration(12.3), duration(300), duration(7200)], ["0.03 s", "0.4 s", "12 s", "5 min", "2 h"]);
});

test("days", () => {
  const now = new Date(2026, 10, 28, 9, 0);
  const group = (...when) => dayGroup(new Date(2026, ...when), now);
  assert.deepEqual([group(10, 28, 0, 0), group(10, 27, 23, 59), group(10, 27, 0, 0), group(10, 26, 23, 0), group(10, 21, 9, 0), group(10, 20, 9, 0)], ["today", "yesterday", "yesterday", "lastWeek", "lastWeek", "earlier"]);
});
