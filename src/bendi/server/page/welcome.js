// An empty conversation: which model is there, and questions to begin with.

import * as chat from "./chat.js";
import { shown } from "./dialogs.js";
import { el } from "./dom.js";
import { icon } from "./icons.js";
import { t } from "./language.js";
import { openModels } from "./models_view.js";
import { state } from "./state.js";

export function welcome() {
  const hour = new Date().getHours();
  const greeting = hour < 5 ? "greetNight" : hour < 12 ? "greetMorning" : hour < 18 ? "greetDay" : "greetEvening";
  const known = state.models !== null;
  const only = known && state.models.length > 0 && state.models.every((model) => model.name === "demo");
  const questions = only ? ["ask1", "ask2", "ask3", "ask4"] : ["begin1", "begin2", "begin3", "begin4"];
  return el(
    "div",
    { class: "welcome" },
    el("h2", {}, t(greeting)),
    el("p", {}, t("private")),
    el(
      "div",
      { class: known ? "starters" : "starters hidden" },
      questions.map((key) => el("button", { type: "button", onclick: () => shown(() => chat.ask(t(key))) }, t(key))),
    ),
    only && el("button", { type: "button", class: "hint", onclick: openModels }, icon("model"), el("span", {}, t("onlyDemo"))),
  );
}
