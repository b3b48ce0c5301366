// Conversations, last used first: find, open, rename, export, delete.

import * as api from "./api.js";
import * as chat from "./chat.js";
import { confirm, prompt, shown, toast } from "./dialogs.js";
import { byId, el, renew, replace, saveFile } from "./dom.js";
import { icon } from "./icons.js";
import { dateText, dayGroup, t } from "./language.js";
import { openMenu } from "./menus.js";
import { openModels } from "./models_view.js";
import { settingsMenu } from "./looks.js";
import { on, state } from "./state.js";

const SEARCH_AFTER_MS = 200;
let list;

export function start() {
  build();
  on("sessions", draw);
  on("session", draw);
  on("answer", draw);
  byId("curtain").addEventListener("click", () => openSidebar(false));
}

export function openSidebar(open) {
  document.body.classList.toggle("sidebar-open", open);
  byId("menu")?.setAttribute("aria-expanded", String(open));
}

export function focusSearch() {
  document.body.classList.remove("sidebar-closed");
  openSidebar(true);
  byId("search").focus();
  byId("search").select();
}

export function build() {
  let waiting = null;
  const search = el("input", { type: "search", id: "search", placeholder: t("search"), "aria-label": t("search"), autocomplete: "off", spellcheck: "false" });
  search.value = state.search;
  search.addEventListener("input", () => {
    state.search = search.value;
    clearTimeout(waiting);
    waiting = setTimeout(() => shown(chat.refreshSessions), SEARCH_AFTER_MS);
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") list.querySelector("a")?.focus();
    if (event.key === "Escape") {
      event.stopPropagation();
      search.value = state.search = "";
      shown(chat.refreshSessions);
      byId("question").focus();
    }
  });
  list = el("nav", { id: "sessions", "aria-label": t("conversations") });
  list.addEventListener("keydown", walk);
  const settings = el("button", { type: "button", class: "quiet wide-button", id: "settings", "aria-haspopup": "menu", "aria-expanded": "false" }, icon("language"), el("span", {}, t("settings")));
  settings.addEventListener("click", () => settingsMenu(settings));
  replace(
    byId("sidebar"),
    el("div", { class: "brand" }, el("img", { src: "/page/bendi.svg", alt: "", width: "28", height: "28" }), el("b", {}, "bendi"), el("span", {}, "本地")),
    el("button", { type: "button", id: "new", class: "wide-button", onclick: begin }, icon("plus"), el("span", {}, t("newChat"))),
    el("div", { class: "search", role: "search" }, icon("search"), search, el("kbd", {}, "/")),
    list,
    el("div", { class: "sidebar-foot" }, el("button", { type: "button", class: "quiet wide-button", id: "models", onclick: openModels }, icon("model"), el("span", {}, t("models"))), settings),
  );
  draw();
}

export function begin() {
  chat.newChat();
  openSidebar(false);
  byId("question").focus();
}

function walk(event) {
  const links = [...list.querySelectorAll("a")];
  const at = links.indexOf(document.activeElement);
  if (at < 0) return;
  if (event.key === "ArrowDown") links[at + 1]?.focus();
  else if (event.key === "ArrowUp") (links[at - 1] ?? byId("search")).focus();
  else if (event.key === "Delete") removeSession(state.sessions[at]);
  else if (event.key === "F2") renameSession(state.sessions[at]);
  else return;
  event.preventDefault();
}

function draw() {
  const groups = new Map();
  for (const session of state.sessions) {
    const group = state.search.trim() ? "found" : dayGroup(new Date(session.updated));
    groups.set(group, [...(groups.get(group) ?? []), session]);
  }
  const focused = document.activeElement?.closest?.("#sessions a")?.dataset.id;
  renew(
    list,
    [...groups].map(([group, sessions]) => el("section", {}, el("h2", {}, t(group)), el("ul", {}, sessions.map(sessionNode)))),
    !state.sessions.length && el("p", { class: "none" }, t(state.search.trim() ? "nothingFound" : "noConversations")),
  );
  if (focused && !list.contains(document.activeElement)) list.querySelector(`a[data-id="${CSS.escape(focused)}"]`)?.focus();
}

function sessionNode(session) {
  const current = state.session?.id === session.id;
  const title = session.title || t("untitled");
  const link = el(
    "a",
    { href: `#/s/${session.id}`, "data-id": session.id, "aria-current": current ? "page" : null, title: `${title}\n${session.model} · ${dateText(new Date(session.updated))}` },
    el("span", { class: "session-title" }, title),
    session.excerpt ? el("small", {}, session.excerpt) : null,
  );
  link.addEventListener("click", () => openSidebar(false));
  const more = el("button", { type: "button", class: "quiet small", "aria-label": t("moreOf", { title }), "aria-haspopup": "menu", "aria-expanded": "false" }, icon("more"));
  more.addEventListener("click", () => sessionMenu(more, session));
  return el("li", {}, link, chat.answering(session.id) ? el("span", { class: "pulse", title: t("answering") }) : null, more);
}

export function sessionMenu(button, session) {
  openMenu(button, [
    { label: t("rename"), icon: "edit", action: () => renameSession(session) },
    { label: t("exportMarkdown"), icon: "download", action: () => exportAs(session, "md") },
    { label: t("exportJson"), icon: "file", action: () => exportAs(session, "json") },
    { label: t("delete"), icon: "trash", danger: true, action: () => removeSession(session) },
  ]);
}

export async function renameSession(session) {
  const title = await prompt(t("rename"), t("title"), { value: session.title });
  if (title) await shown(() => chat.rename(session, title));
}

async function removeSession(session) {
  const text = t("deleteText", { title: session.title || t("untitled") });
  if (!(await confirm(t("deleteHeading"), text, t("delete"), { danger: true }))) return;
  await shown(() => chat.remove(session));
  toast(t("deleted"));
}

function exportAs(session, kind) {
  return shown(async () => {
    // Names of files keep letters of every language, and nothing that a file system takes for something else.
    const name = (session.title || session.id).replace(/[^\p{L}\p{N} ._-]+/gu, "").trim().replace(/^\.+/, "").slice(0, 60) || session.id;
    if (kind === "md") saveFile(`${name}.md`, await api.exportSession(session.id), "text/markdown");
    else saveFile(`${name}.json`, JSON.stringify(await api.session(session.id), null, 2), "application/json");
  });
}
