// The line at the top: the model that answers, the conversation's title, and the way to the panels.

import * as chat from "./chat.js";
import { shown } from "./dialogs.js";
import { byId, el, replace } from "./dom.js";
import { icon } from "./icons.js";
import { size, t } from "./language.js";
import { openMenu } from "./menus.js";
import { openModels } from "./models_view.js";
import { togglePanel } from "./panel.js";
import { openSidebar, renameSession, sessionMenu } from "./sidebar.js";
import { on, state } from "./state.js";
import { isLoaded } from "./attachments.js";

let parts = {};

export function start() {
  build();
  for (const topic of ["session", "models", "loaded"]) on(topic, update);
}

export function build() {
  const menu = el("button", { type: "button", class: "quiet", id: "menu", "aria-label": t("conversations"), title: t("conversations"), "aria-expanded": "false", "aria-controls": "sidebar" }, icon("menu"));
  menu.addEventListener("click", () => openSidebar(!document.body.classList.contains("sidebar-open")));
  parts = {
    model: el("button", { type: "button", class: "quiet", id: "model", "aria-haspopup": "menu", "aria-expanded": "false", onclick: modelMenu }),
    title: el("h1", { id: "title" }),
    more: el("button", { type: "button", class: "quiet", "aria-label": t("more"), "aria-haspopup": "menu", "aria-expanded": "false" }, icon("more")),
  };
  parts.more.addEventListener("click", () => sessionMenu(parts.more, state.session));
  parts.title.addEventListener("dblclick", () => state.session && renameSession(state.session));
  const panel = el("button", { type: "button", class: "quiet", id: "panel-button", "aria-label": t("live"), title: t("live"), "aria-controls": "panel", onclick: togglePanel }, icon("gauge"));
  panel.setAttribute("aria-expanded", String(!byId("panel").hidden));
  replace(byId("bar"), menu, parts.model, parts.title, parts.more, panel);
  update();
}

function modelMenu() {
  const current = state.session?.model ?? state.model;
  const entries = (state.models ?? [])
    .filter((model) => model.complete)
    .map((model) => ({
      label: model.name,
      detail: [model.quantization, size(model.size_bytes)].filter(Boolean).join(" · "),
      checked: model.name === current,
      dot: isLoaded(model.name) ? t("isLoaded") : "",
      action: () => shown(() => chat.useModel(model.name)),
    }));
  const more = { label: t("moreModels"), icon: "plus", action: openModels };
  openMenu(parts.model, [t("models"), ...entries, more], t("models"));
}

function update() {
  const name = state.session?.model ?? state.model;
  replace(parts.model, el("span", { class: "dot", hidden: !isLoaded(name) }), el("span", { class: "model-name" }, name || (state.models ? t("noModel") : "…")), icon("chevron"));
  parts.model.setAttribute("aria-label", `${t("model")}: ${name || t("noModel")}`);
  const title = state.session?.title ?? "";
  replace(parts.title, title);
  parts.more.hidden = !title;
  document.title = title ? `${title} · bendi` : "bendi 本地";
}
