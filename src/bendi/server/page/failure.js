// An error under the conversation: what happened, and buttons for what can be done about it.

import * as chat from "./chat.js";
import { shown } from "./dialogs.js";
import { el } from "./dom.js";
import { icon } from "./icons.js";
import { number, t } from "./language.js";
import { openModels } from "./models_view.js";
import { state, tell } from "./state.js";

const again = ({ question }, policy) => {
  const { text, images, from_position: fromPosition, retry } = question;
  return shown(() => (retry ? chat.retry(policy) : chat.ask(text, { images, fromPosition, policy })));
};

function dismiss() {
  state.failure = null;
  tell("messages");
}

const button = (text, act, { main = false, title = "" } = {}) =>
  el("button", { type: "button", class: main ? "main" : null, title: title || null, onclick: act }, text);

/** `failure`: an ApiFailure, with `question` (what was asked). */
export function failureCard(failure) {
  if (failure.extra?.context_needed) return fullCard(failure);
  const retry = failure.question && button(t("tryAgain"), () => again(failure), { main: true });
  const empty = failure.code === "empty" && button(t("tryAgain"), () => shown(() => chat.retry()), { main: true });
  const models = ["insufficient_memory", "model_not_found", "model_unusable"].includes(failure.code) && button(t("chooseModel"), openModels);
  const heading = failure.status === 429 ? t("busy") : failure.code === "empty" ? t("nothingCame") : t("wentWrong");
  return el(
    "article",
    { class: "failure", role: "alert" },
    el("h3", {}, icon("warn"), heading),
    el("p", {}, failure.message),
    el("div", { class: "choices" }, button(t("dismiss"), dismiss), models, retry, empty),
  );
}

/** The context is full: nothing was sent, nothing cut, and the reader decides. */
function fullCard(failure) {
  const { context_needed: needed, context_available: available } = failure.extra;
  const remember = el("input", { type: "checkbox", id: "keep-policy" });
  const choose = (policy) =>
    shown(async () => {
      if (remember.checked) await chat.keepPolicy(policy);
      await again(failure, policy);
    });
  const share = el("div", { class: "meter over" }, el("div", {}), el("i", {}));
  share.firstChild.style.setProperty("width", "100%");
  share.lastChild.style.setProperty("inset-inline-start", `${Math.min(100, (100 * available) / needed)}%`);
  const older = state.messages.filter((message) => message.kind === "turn").length > 0;
  return el(
    "article",
    { class: "failure full", role: "alert" },
    el("h3", {}, icon("gauge"), t("contextFull")),
    el("p", {}, t("contextFullText", { needed: number(needed), available: number(available) })),
    share,
    older && el(
      "div",
      { class: "options" },
      option("compact", t("policyCompact"), t("policyCompactText"), () => choose("compact")),
      option("slide", t("policySlide"), t("policySlideText"), () => choose("slide")),
    ),
    !older && el("p", {}, t("nothingOlder")),
    el(
      "div",
      { class: "choices" },
      older && el("label", { class: "check" }, remember, el("span", {}, t("policyKeep"))),
      button(t("policyShorten"), dismiss),
    ),
  ); // prettier-ignore
}

function option(name, heading, text, act) {
  return el("button", { type: "button", class: "option", "data-policy": name, onclick: act }, el("b", {}, heading), el("small", {}, text));
}
