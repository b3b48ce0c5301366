// The conversation as it is read: questions, answers, the answer that grows, errors and what can be done about them.

import * as api from "./api.js";
import { dataUri, partsOf } from "./attachments.js";
import * as chat from "./chat.js";
import { shown, toast } from "./dialogs.js";
import { byId, copyText, el, replace } from "./dom.js";
import { failureCard } from "./failure.js";
import { icon } from "./icons.js";
import { duration, number, rate, size, t } from "./language.js";
import { MarkdownView } from "./markdown_dom.js";
import { on, state } from "./state.js";
import { welcome } from "./welcome.js";

const NEAR_END_PX = 120;
const drawn = new Map();
let growing = null;
let waitingFrame = false;
let editing = null; // the position of the question that is being edited
let draft = null; // what was written there when it was not taken
const pictures = new Map(); // addresses of images that were fetched, by session and name

export function start() {
  on("messages", draw);
  on("answer", () => {
    if (state.answer) editing = null;
    draw();
  });
  on("refused", () => {
    if (state.refused.from_position === undefined) return;
    editing = state.refused.from_position;
    draft = state.refused.text;
  });
  on("session", () => state.session || draw());
  on("growing", () => {
    if (waitingFrame) return;
    waitingFrame = true;
    requestAnimationFrame(() => {
      waitingFrame = false;
      grow();
    });
  });
  const talk = byId("talk");
  const down = el("button", { type: "button", id: "down", "aria-label": t("toEnd"), title: t("toEnd"), hidden: true, onclick: toEnd }, icon("chevron"));
  byId("main").append(down);
  talk.addEventListener("scroll", () => {
    down.hidden = nearEnd();
  });
}

const nearEnd = () => {
  const talk = byId("talk");
  return talk.scrollHeight - talk.scrollTop - talk.clientHeight < NEAR_END_PX;
};

export function toEnd() {
  const talk = byId("talk");
  talk.scrollTop = talk.scrollHeight;
}

/** After a change of the language everything is drawn anew. */
export function redraw() {
  drawn.clear();
  growing = null;
  byId("messages").replaceChildren();
  draw();
}

function draw() {
  const box = byId("messages");
  const session = state.session?.id ?? "";
  const follow = nearEnd() || box.dataset.session !== session;
  if (box.dataset.session !== session) {
    editing = null;
    drawn.clear();
    box.replaceChildren();
  }
  box.dataset.session = session;
  const empty = !state.messages.length && !state.answer && !state.failure;
  byId("main").classList.toggle("empty", empty);
  const nodes = empty ? [welcome()] : state.messages.map((message, at) => messageNode(message, at));
  if (state.answer) nodes.push(growingNode(state.answer));
  else growing = null;
  if (state.failure && !state.answer) nodes.push(failureCard(state.failure));
  // Nodes that stay are not touched: what is selected in them stays selected.
  nodes.forEach((node, at) => {
    if (box.children[at] !== node) box.insertBefore(node, box.children[at] ?? null);
  });
  while (box.children.length > nodes.length) box.lastChild.remove();
  if (follow) toEnd();
  byId("down").hidden = nearEnd();
}

function messageNode(message, at) {
  const last = at === state.messages.length - 1 && !state.answer;
  const key = `${message.position ?? "new"}.${message.state}.${message.content.length}.${message.images?.length ?? 0}.${message.waiting ?? ""}`;
  const mode = `${last}.${Boolean(state.answer)}.${editing === message.position && message.position !== undefined}`;
  const known = drawn.get(at);
  if (known?.key === key && known.mode === mode && known.message.content === message.content) return known.node;
  const node =
    message.kind === "summary" ? summaryNode(message)
    : message.role === "user" ? questionNode(message)
    : answerNode(message, last); // prettier-ignore
  drawn.set(at, { key, mode, node, message });
  return node;
}

function action(name, text, act) {
  return el("button", { type: "button", class: "quiet small", "aria-label": text, title: text, onclick: act }, icon(name));
}

async function copy(text) {
  if (await copyText(text)) toast(t("copied"));
}

const branchAfter = (position) =>
  shown(async () => {
    await chat.branch(position);
    toast(t("branched"));
  });

// ---- Questions

function questionNode(message) {
  if (editing !== null && editing === message.position) return editNode(message);
  const { text, files } = partsOf(message.content);
  const ready = !message.waiting && !state.answer;
  const actions = el(
    "div",
    { class: "actions" },
    action("copy", t("copyQuestion"), () => copy(message.content)),
    ready && action("edit", t("edit"), () => edit(message.position)),
    ready && message.position > 1 && action("branch", t("branchHere"), () => branchAfter(message.position)),
  );
  const bubble = el("div", { class: "bubble" }, imagesNode(message), text && el("p", {}, text), files.map(fileNode));
  return el("article", { class: "question", "aria-label": t("youSaid") }, bubble, actions);
}

function imagesNode({ images }) {
  return images?.length ? el("div", { class: "images" }, images.map(imageNode)) : null;
}

/** An image, fetched with the key where one is needed; as large as it is after a click. */
function imageNode(image) {
  const picture = el("img", { alt: t("image"), class: "small" });
  const grow = () => picture.classList.toggle("small");
  const node = el("button", { type: "button", class: "image", "aria-label": t("imageLarger"), title: t("imageLarger"), onclick: grow }, picture);
  addressOf(image).then(
    (address) => picture.setAttribute("src", address),
    () => node.replaceWith(el("span", { class: "note" }, icon("warn"), t("imageLost"))),
  );
  return node;
}

/** What an `img` shows: one that was just sent, or one that the server has. */
async function addressOf({ source, name }) {
  if (source) return source;
  const key = `${state.session?.id}/${name}`;
  if (!pictures.has(key)) pictures.set(key, URL.createObjectURL(await api.image(state.session.id, name)));
  return pictures.get(key);
}

/** The images of a question as they are sent again, without those that are shown to be lost. */
async function imagesOf(message) {
  const found = (message.images ?? []).map(async (image) => image.source ?? dataUri(await api.image(state.session.id, image.name)));
  const lost = (error) => (error.status >= 400 ? null : Promise.reject(error));
  return (await Promise.all(found.map((one) => one.catch(lost)))).filter(Boolean);
}

function fileNode({ name, text }) {
  const bytes = new Blob([text]).size;
  return el(
    "details",
    { class: "file" },
    el("summary", {}, icon("file"), el("span", { class: "file-name" }, name), el("small", {}, size(bytes))),
    el("pre", { tabindex: "0" }, text),
  );
}

/** The last question, for the arrow key in an empty field. */
export function editLast() {
  const last = state.messages.findLast((message) => message.role === "user" && !message.waiting);
  if (last && !state.answer) edit(last.position);
}

function edit(position) {
  editing = position;
  draw();
}

function editNode(message) {
  const field = el("textarea", { class: "edit", "aria-label": t("edit"), rows: Math.min(14, message.content.split("\n").length + 1) });
  field.value = draft ?? message.content;
  draft = null;
  const stop = () => {
    editing = null;
    draw();
    byId("question")?.focus();
  };
  const send = (keepBoth) =>
    shown(async () => {
      const text = field.value.trim();
      const images = await imagesOf(message);
      if (!text && !images.length) return;
      editing = null;
      if (keepBoth) {
        await chat.branch(message.position);
        await chat.ask(text, { images });
      } else {
        await chat.ask(text, { images, fromPosition: message.position });
      }
    });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      stop();
    }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send(false);
    }
  });
  requestAnimationFrame(() => {
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  });
  const choices = el(
    "div",
    { class: "choices" },
    el("button", { type: "button", onclick: stop }, t("cancel")),
    el("button", { type: "button", title: t("sendBranchHint"), onclick: () => send(true) }, icon("branch"), t("sendBranch")),
    el("button", { type: "button", class: "main", title: t("sendEditHint"), onclick: () => send(false) }, t("sendEdit")),
  );
  return el("article", { class: "question editing" }, imagesNode(message), field, choices);
}

// ---- Answers

function thinkingNode(reasoning, label, open) {
  const text = el("div", { class: "thought" }, reasoning);
  return el("details", { class: "thinking", open }, el("summary", {}, icon("chevron"), el("span", {}, label)), text);
}

function answerNode(message, last) {
  const body = el("div", { class: "writing" });
  new MarkdownView(body).show(message.content);
  const thought = message.thoughtS ? t("thoughtFor", { time: duration(message.thoughtS) }) : t("thought");
  const ready = !message.waiting && !state.answer;
  const interrupted = message.state === "partial" && el("p", { class: "note" }, icon("stop"), t("interrupted"));
  const full = message.details?.finish === "length" && el("p", { class: "note" }, icon("info"), t("lengthReached"));
  const actions = el(
    "div",
    { class: last ? "actions lasting" : "actions" },
    action("copy", t("copyAnswer"), () => copy(message.content)),
    ready && last && action("retry", t("retry"), () => shown(() => chat.retry())),
    ready && message.position && action("branch", t("branchAfter"), () => branchAfter(message.position + 1)),
    figures(message.details),
  );
  return el(
    "article",
    { class: "answer", "aria-label": t("answer") },
    message.note && contextNote(message.note),
    message.reasoning && thinkingNode(message.reasoning, thought, false),
    body,
    interrupted,
    full,
    actions,
  );
}

/** The figures of an answer: how many tokens, how fast, when the first came. */
function figures(details) {
  const { usage, timings } = details ?? {};
  if (!usage) return null;
  const parts = [t("tokens", { count: number(usage.completion_tok) })];
  if (timings?.tg_tok_s) parts.push(t("perSecond", { rate: rate(timings.tg_tok_s) }));
  if (timings?.ttft_s) parts.push(t("firstAfter", { time: duration(timings.ttft_s) }));
  const title = t("figures", {
    prompt: number(usage.prompt_tok), cached: number(usage.cached_tok ?? 0), pp: rate(timings?.pp_tok_s) || "–", tg: rate(timings?.tg_tok_s) || "–",
  }); // prettier-ignore
  return el("span", { class: "figures", title }, parts.join(" · "));
}

function contextNote(note) {
  const key = note.policy === "compact" ? "noteCompact" : "noteSlide";
  const text = el("span", {}, t(key, { count: number(note.left_out) }));
  if (!note.summary) return el("p", { class: "note" }, icon("info"), text);
  return el("details", { class: "note" }, el("summary", {}, icon("info"), text), el("div", { class: "thought" }, note.summary));
}

function summaryNode(message) {
  return el(
    "details",
    { class: "note summary" },
    el("summary", {}, icon("info"), el("span", {}, t("summaryOfOlder"))),
    el("div", { class: "thought" }, message.content),
  );
}

// ---- The answer that grows

function growingNode(answer) {
  if (growing?.answer === answer) return growing.node;
  const thought = el("div", { class: "thought" });
  const label = el("span");
  const thinking = el("details", { class: "thinking", hidden: true }, el("summary", {}, icon("chevron"), label), thought);
  const body = el("div", { class: "writing" });
  const phase = el("p", { class: "phase" });
  const note = el("div");
  const node = el("article", { class: "answer growing", "aria-label": t("answer"), "aria-busy": "true" }, note, thinking, body, phase);
  growing = { answer, node, thinking, thought, label, view: new MarkdownView(body), phase, note };
  grow();
  return node;
}

function grow() {
  if (!growing || growing.answer !== state.answer) return;
  const follow = nearEnd();
  const { answer, thinking, thought, label, view, phase, note } = growing;
  if (answer.note && !note.firstChild) note.append(contextNote(answer.note));
  if (answer.reasoning) {
    thinking.hidden = false;
    thought.textContent = answer.reasoning;
    replace(label, answer.thoughtS === null ? t("thinking") : t("thoughtFor", { time: duration(answer.thoughtS) }));
    thinking.classList.toggle("alive", answer.thoughtS === null);
  }
  view.show(answer.text);
  replace(phase, phaseText(answer));
  if (follow) toEnd();
}

function phaseText({ phase, progress }) {
  if (phase === "writing" || phase === "thinking") return [el("span", { class: "caret" })];
  const values = progress ?? {};
  const texts = {
    waiting: () => t("waiting"),
    loading: () => t("loadingModel"),
    reading: () => t("reading", { done: number(values.done_tok), total: number(values.total_tok) }),
    compacting: () => t("compacting", { done: number(values.done + 1), total: number(values.total) }),
  };
  return [el("span", { class: "pulse" }), el("span", {}, texts[phase]())];
}
