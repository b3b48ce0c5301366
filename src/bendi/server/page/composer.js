// Where questions are written: the field, files, the persona, send and stop, and how full the context is.

import * as api from "./api.js";
import { contextTokens, estimateTokens, isLoaded, partsOf, readImageFile, readTextFile, withFiles } from "./attachments.js";
import * as chat from "./chat.js";
import { shown, toast } from "./dialogs.js";
import { byId, el, replace } from "./dom.js";
import { icon } from "./icons.js";
import { number, size, t } from "./language.js";
import { openMenu } from "./menus.js";
import { editLast, toEnd } from "./messages.js";
import { on, state } from "./state.js";

const COUNT_AFTER_MS = 500;
// Keyboards on glass have no Shift+Enter: there, Enter is a new line, and the button sends.
const touch = () => matchMedia("(pointer: coarse)").matches;
let files = [];
let field;
let parts = {};
let counting = null;
let refused = null; // the text of a question that was not taken, while it stands in the field
let draftTokens = 0;

export function start() {
  build();
  on("answer", () => {
    if (state.answer && refused !== null && field.value === refused) {
      files = [];
      setText("");
      drawFiles();
      refused = null;
    }
    update();
  });
  on("session", update);
  on("models", update);
  on("context", update);
  on("loaded", update);
  on("refused", () => {
    // A question that was not taken goes back into the field, whole, with its files.
    const { text, images = [], from_position: edited } = state.refused;
    if (!(text || images.length) || edited !== undefined || field.value || files.length) return;
    const back = partsOf(text);
    files = back.files.map((file) => ({ ...file, bytes: new Blob([file.text]).size, tokens: estimateTokens(file.text), exact: false }));
    files.push(...images.map((source) => sentBefore(source) ?? { name: t("image"), image: source, bytes: Math.floor((source.length * 3) / 4) }));
    setText(back.text);
    refused = back.text;
    drawFiles();
  });
  const main = byId("main");
  main.addEventListener("dragover", (event) => {
    event.preventDefault();
    main.classList.add("dropping");
  });
  main.addEventListener("dragleave", (event) => event.relatedTarget && main.contains(event.relatedTarget) || main.classList.remove("dropping"));
  main.addEventListener("drop", (event) => {
    event.preventDefault();
    main.classList.remove("dropping");
    attach(event.dataTransfer.files);
  });
}

/** Builds it anew, with what is written in it: after a change of the language. */
export function build() {
  const text = field?.value ?? "";
  field = el("textarea", { id: "question", rows: "1", placeholder: t("placeholder"), "aria-label": t("placeholder"), autocomplete: "off" });
  const chooser = el("input", { type: "file", multiple: true, class: "unseen", tabindex: "-1", "aria-hidden": "true", id: "files" });
  chooser.addEventListener("change", () => {
    attach(chooser.files);
    chooser.value = "";
  });
  parts = {
    files: el("div", { class: "attached" }),
    persona: el("button", { type: "button", id: "persona", class: "quiet", "aria-haspopup": "menu", "aria-expanded": "false", onclick: personaMenu }),
    send: el("button", { type: "button", id: "send", class: "round main", "aria-label": t("send"), title: t("send"), onclick: send }, icon("send")),
    stop: el("button", { type: "button", id: "stop", class: "round", "aria-label": t("stop"), title: t("stop"), hidden: true, onclick: chat.stop }, icon("stop")),
    meter: el("div", { class: "meter", role: "meter", "aria-label": t("context"), "aria-valuemin": "0" }, el("div"), el("i")),
    use: el("span", { class: "use" }),
  };
  const attachButton = el("button", { type: "button", class: "quiet", "aria-label": t("attach"), title: t("attach"), onclick: () => chooser.click() }, icon("attach"));
  const row = el("div", { class: "row" }, attachButton, chooser, parts.persona, el("span", { class: "gap" }), parts.stop, parts.send);
  replace(byId("foot"), el("div", { class: "composer" }, parts.files, field, row), el("div", { class: "below" }, parts.meter, parts.use));
  field.addEventListener("input", typed);
  field.addEventListener("keydown", key);
  field.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) {
      event.preventDefault();
      attach(event.clipboardData.files);
    }
  });
  setText(text);
  drawFiles();
}

export const focusField = () => field.focus();

function setText(text) {
  field.value = text;
  typed();
}

function typed() {
  field.style.setProperty("height", "auto");
  field.style.setProperty("height", `${Math.min(field.scrollHeight, innerHeight * 0.4)}px`);
  clearTimeout(counting);
  counting = setTimeout(count, COUNT_AFTER_MS);
  update();
}

function key(event) {
  // While an input method composes (Chinese, Japanese), Enter takes its choice; Safari tells by 229 only.
  if (event.isComposing || event.keyCode === 229) return;
  if (event.key === "Enter" && !event.shiftKey && !touch()) {
    event.preventDefault();
    send();
  }
  if (event.key === "ArrowUp" && field.value === "" && !files.length) {
    event.preventDefault();
    editLast();
  }
}

let sent = []; // the images of the last question, which may come back

const sentBefore = (source) => sent.find((file) => file.image === source);
const texts = () => files.filter((file) => !file.image);

function send() {
  const text = withFiles(field.value.trim(), texts());
  sent = files.filter((file) => file.image);
  if (!(text.trim() || sent.length) || state.answer) return;
  const images = sent.map((file) => file.image);
  files = [];
  drawFiles();
  setText("");
  toEnd();
  shown(() => chat.ask(text, { images })).finally(() => field.focus({ preventScroll: true }));
}

// ---- Files

async function attach(list) {
  // A copy: the list of the chooser is emptied while the first file is read.
  for (const file of [...list]) {
    const read = await (file.type.startsWith("image/") ? readImageFile(file) : readTextFile(file));
    if (read.problem) {
      toast(t(read.problem, { name: file.name }), { problem: true });
    } else if (read.image) {
      files = [...files, read];
    } else {
      files = [...files, { ...read, tokens: estimateTokens(read.text), exact: false }];
    }
  }
  drawFiles();
  field.focus();
  count();
}

function drawFiles() {
  const room = contextTokens();
  replace(
    parts.files,
    files.map((file) => {
      const remove = el("button", {
        type: "button", class: "quiet small", "aria-label": t("removeFile", { name: file.name }), title: t("removeFile", { name: file.name }),
        onclick: () => {
          files = files.filter((other) => other !== file);
          drawFiles();
          count();
        },
      }, icon("close")); // prettier-ignore
      const { image, width, height } = file;
      const tokens = t(file.exact ? "tokens" : "tokensAbout", { count: number(file.tokens) });
      const more = !image ? ` · ${tokens}` : width ? ` · ${width} × ${height}` : "";
      const tooLong = room !== null && file.tokens > room;
      return el(
        "div",
        { class: tooLong ? "chip over" : "chip", title: tooLong ? t("longerThanContext", { room: number(room) }) : null },
        image ? el("img", { src: image, alt: "" }) : icon(tooLong ? "warn" : "file"),
        el("span", { class: "file-name" }, file.name),
        el("small", {}, size(file.bytes) + more),
        remove,
      );
    }),
  );
  update();
}

/** Exact where the model is loaded, else an estimate on the safe side: nothing is loaded only to count. */
async function count() {
  clearTimeout(counting);
  const model = state.session?.model ?? state.model;
  const text = withFiles(field.value, texts());
  draftTokens = text.trim() ? estimateTokens(text) : 0;
  update();
  const inexact = texts().filter((file) => !file.exact);
  if (!isLoaded(model) || (!inexact.length && text.length < 2000)) return;
  try {
    for (const file of inexact) Object.assign(file, { tokens: await api.countTokens(model, file.text), exact: true });
    const exact = await api.countTokens(model, text);
    if (text === withFiles(field.value, texts())) draftTokens = exact;
  } catch {
    return; // The estimate stays; the server counts again before it takes the question.
  }
  if (inexact.length) drawFiles();
  else update();
}

// ---- What is shown around it

function personaMenu() {
  const current = state.session ? (state.session.persona ?? "") : state.persona;
  const entry = (name, description) => ({
    label: name || t("noPersona"), detail: description, checked: name === (current || ""), action: () => shown(() => chat.usePersona(name)),
  }); // prettier-ignore
  const all = state.personas.map((persona) => entry(persona.name, persona.description));
  openMenu(parts.persona, [t("personas"), entry("", t("noPersonaText")), ...all], t("personas"));
}

function update() {
  const busy = Boolean(state.answer);
  parts.send.hidden = busy;
  parts.stop.hidden = !busy;
  parts.send.disabled = !field.value.trim() && !files.length;
  const persona = (state.session ? state.session.persona : state.persona) || "";
  replace(parts.persona, icon("persona"), el("span", {}, persona || t("persona")));
  parts.persona.classList.toggle("chosen", Boolean(persona));
  parts.persona.setAttribute("aria-label", `${t("persona")}: ${persona || t("noPersona")}`);
  drawUse();
}

function drawUse() {
  const room = contextTokens();
  const used = state.context?.used_tok ?? 0;
  const known = room !== null && (used > 0 || draftTokens > 0);
  parts.meter.hidden = !known;
  if (!known) {
    replace(parts.use, touch() ? "" : t("hint"));
    return;
  }
  const share = Math.min(100, (100 * used) / room);
  const draft = Math.min(100 - share, (100 * draftTokens) / room);
  const [bar, ahead] = parts.meter.children;
  bar.style.setProperty("width", `${share}%`);
  ahead.style.setProperty("inset-inline-start", `${share}%`);
  ahead.style.setProperty("width", `${draft}%`);
  parts.meter.classList.toggle("nearly", used + draftTokens > 0.8 * room);
  parts.meter.classList.toggle("over", used + draftTokens > room);
  parts.meter.setAttribute("aria-valuemax", room);
  parts.meter.setAttribute("aria-valuenow", Math.min(used, room));
  const text = t("contextUse", { used: number(used), room: number(room) });
  const more = draftTokens > 200 ? ` · ${t("contextDraft", { count: number(draftTokens) })}` : "";
  const warning = used + draftTokens > room ? ` · ${t("contextWillAsk")}` : "";
  parts.meter.setAttribute("aria-valuetext", text);
  replace(parts.use, text + more + warning);
}
