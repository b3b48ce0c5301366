// What goes on now: memory by model, who waits, how fast the last answers came, how full the context is.

import * as api from "./api.js";
import { contextTokens } from "./attachments.js";
import { refreshLoaded } from "./catalogue.js";
import { shown } from "./dialogs.js";
import { byId, el, renew, svg } from "./dom.js";
import { icon } from "./icons.js";
import { duration, number, rate, size, t } from "./language.js";
import { preference, remember } from "./preferences.js";
import { on, state } from "./state.js";

const COLOURS = 6;

export function start() {
  showPanel(preference("panel", innerWidth > 1200));
  for (const topic of ["loaded", "rates", "context", "session", "messages"]) on(topic, draw);
}

export function togglePanel() {
  const open = byId("panel").hidden;
  remember("panel", open);
  showPanel(open);
}

export function showPanel(open) {
  byId("panel").hidden = !open;
  document.body.classList.toggle("panel-open", open);
  byId("panel-button")?.setAttribute("aria-expanded", String(open));
  byId("panel").setAttribute("aria-label", t("live"));
  draw();
}

export function draw() {
  const panel = byId("panel");
  if (panel.hidden) return;
  const focused = document.activeElement?.closest?.("#panel button")?.id;
  const shut = el("button", { type: "button", class: "quiet small", "aria-label": t("close"), title: t("close"), onclick: togglePanel }, icon("close"));
  renew(panel, el("header", {}, el("h2", {}, t("live")), shut), memory(), speeds(), contextPart());
  if (focused) byId(focused)?.focus();
}

function memory() {
  const { models = [] } = state.loaded ?? {};
  const budget = state.memoryBytes;
  const used = models.reduce((sum, model) => sum + model.memory_bytes, 0);
  const whole = Math.max(budget, used, 1);
  const bar = el("div", { class: "stack", role: "img", "aria-label": t("memoryUse", { used: size(used), whole: size(whole) }) });
  models.forEach((model, at) => {
    const share = el("i", { class: `tone-${at % COLOURS}`, title: `${model.model}: ${size(model.memory_bytes)}` });
    share.style.setProperty("width", `${(100 * model.memory_bytes) / whole}%`);
    bar.append(share);
  });
  return el(
    "section",
    {},
    el("h3", {}, t("memory"), el("span", {}, budget ? t("memoryOf", { used: size(used), whole: size(budget) }) : size(used))),
    bar,
    models.length ? el("ul", { class: "loaded" }, models.map(modelNode)) : el("p", { class: "none" }, t("nothingLoaded")),
  );
}

function modelNode(model, at) {
  const queue = model.waiting ? t("queue", { busy: number(model.busy), waiting: number(model.waiting) }) : model.busy ? t("busyWith", { count: number(model.busy) }) : t("idle");
  const leaves = model.pinned ? t("pinned") : model.expires_s === null ? "" : t("expires", { time: duration(model.expires_s) });
  const stateText = model.state === "ready" ? queue : t(model.state === "loading" ? "stateLoading" : "stateStopping");
  const facts = [size(model.memory_bytes), t("contextOf", { count: number(model.context_tok) }), model.slots > 1 ? t("slots", { count: number(model.slots) }) : ""];
  return el(
    "li",
    {},
    el("i", { class: `swatch tone-${at % COLOURS}` }),
    el(
      "div",
      {},
      el("b", {}, model.model),
      el("small", {}, facts.filter(Boolean).join(" · ")),
      el("small", { class: model.busy ? "alive" : null }, [stateText, leaves].filter(Boolean).join(" · ")),
    ),
    el("button", {
      type: "button", class: model.pinned ? "quiet small chosen" : "quiet small", id: `pin-${at}`, "aria-pressed": String(model.pinned),
      "aria-label": t("pin", { model: model.model }), title: t("pin", { model: model.model }),
      onclick: () => shown(async () => { await api.pinModel(model.model, !model.pinned); await refreshLoaded(); }),
    }, icon("pin")),
    el("button", {
      type: "button", class: "quiet small", id: `unload-${at}`, "aria-label": t("unload", { model: model.model }), title: t("unload", { model: model.model }),
      onclick: () => shown(async () => { await api.stopModel(model.model); await refreshLoaded(); }),
    }, icon("stop")),
  ); // prettier-ignore
}

function speeds() {
  const last = state.rates.at(-1) ?? stored();
  if (!last) return null;
  const figure = (value, unit, name, title) =>
    el("div", { class: "figure", title }, el("b", {}, value || "–"), el("small", {}, unit), el("span", {}, name));
  return el(
    "section",
    {},
    el("h3", {}, t("speed"), el("span", {}, t("lastAnswer"))),
    el(
      "div",
      { class: "figures-row" },
      figure(rate(last?.pp), "tok/s", "PP", t("ppText")),
      figure(rate(last?.tg), "tok/s", "TG", t("tgText")),
      figure(last?.ttft ? duration(last.ttft) : "", "", "TTFT", t("ttftText")),
    ),
    sparkline(state.rates.map((entry) => entry.tg ?? 0)),
  );
}

/** Of the last answer of the open conversation, when none was given since the page was opened. */
function stored() {
  const timings = state.messages.findLast((message) => message.details?.timings)?.details.timings;
  return timings && { pp: timings.pp_tok_s, tg: timings.tg_tok_s, ttft: timings.ttft_s };
}

/** Token generation of the last answers as a line; nothing until there are two. */
function sparkline(values) {
  if (values.length < 2) return null;
  const top = Math.max(...values, 1);
  const points = values.map((value, at) => `${((100 * at) / (values.length - 1)).toFixed(1)},${(28 - (24 * value) / top).toFixed(1)}`);
  return svg(
    "svg",
    { class: "spark", viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img", "aria-label": t("sparkText", { values: values.map(rate).join(", ") }) },
    svg("polygon", { points: `0,30 ${points.join(" ")} 100,30` }),
    svg("polyline", { points: points.join(" ") }),
  );
}

function contextPart() {
  const room = contextTokens();
  const used = state.context?.used_tok;
  if (used === undefined || room === null) return null;
  const bar = el("div", { class: "stack" }, el("i", { class: "tone-0" }));
  bar.firstChild.style.setProperty("width", `${Math.min(100, (100 * used) / room)}%`);
  return el(
    "section",
    {},
    el("h3", {}, t("context"), el("span", {}, t("contextUse", { used: number(used), room: number(room) }))),
    bar,
    state.context.left_out ? el("p", { class: "none" }, t("leftOut", { count: number(state.context.left_out) })) : null,
  );
}
