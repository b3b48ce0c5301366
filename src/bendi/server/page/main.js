// The page begins here: looks, views, addresses (`#/s/ID` is a conversation), the keyboard.

import * as api from "./api.js";
import { refreshLoaded, refreshMachine, refreshModels, refreshPersonas } from "./catalogue.js";
import * as chat from "./chat.js";
import * as composer from "./composer.js";
import { showShortcuts, shown } from "./dialogs.js";
import { byId } from "./dom.js";
import * as header from "./header.js";
import { t } from "./language.js";
import { applyLooks, askForKey } from "./looks.js";
import * as messages from "./messages.js";
import * as models from "./models_view.js";
import * as panel from "./panel.js";
import * as sidebar from "./sidebar.js";
import { on, state } from "./state.js";

const LOOK_BUSY_MS = 1500;
const LOOK_IDLE_MS = 6000;
const LONGEST_SPOKEN = 1200;

async function begin() {
  applyLooks();
  api.onKeyWanted(askForKey);
  for (const view of [sidebar, header, composer, messages, panel, models]) view.start();
  on("language", () => {
    for (const view of [sidebar, header, composer]) view.build();
    messages.redraw();
    panel.draw();
  });
  on("key", load);
  on("answer", speak);
  on("answer", () => refreshLoaded().catch(() => {}));
  on("models", () => state.messages.length || state.answer || messages.redraw());
  addEventListener("popstate", () => shown(follow));
  addEventListener("keydown", key);
  await load();
  composer.focusField();
  watch();
}

async function load() {
  const found = await shown(async () => {
    await refreshModels(); // first and alone: if a key is wanted, it is asked for once
    await Promise.all([chat.refreshSessions(), refreshPersonas(), refreshLoaded(), refreshMachine()]);
    return true;
  });
  if (found) await shown(follow);
  document.body.dataset.ready = Boolean(found);
}

/** Shows what the address says. */
async function follow() {
  const id = /^#\/s\/([\w-]+)$/.exec(location.hash)?.[1];
  if (!id) return chat.newChat();
  if (state.session?.id === id) return undefined;
  try {
    return await chat.openSession(id);
  } catch (error) {
    if (error.status === 404) chat.newChat();
    throw error;
  }
}

/** Looks at what is loaded and who waits, more often while something goes on, and not in a hidden tab. */
async function watch() {
  for (;;) {
    const busy = state.answer || state.loaded?.models?.some((model) => model.busy || model.state !== "ready");
    await new Promise((done) => setTimeout(done, busy ? LOOK_BUSY_MS : LOOK_IDLE_MS));
    if (document.hidden) continue;
    try {
      await refreshLoaded();
      document.body.classList.remove("offline");
    } catch (error) {
      document.body.classList.toggle("offline", error.status === 0);
    }
  }
}

let spokenOf = null;

/** For screen readers: that an answer has begun, and the answer when it is there; not every token. */
function speak() {
  if (state.answer) {
    if (spokenOf !== state.answer) byId("spoken").textContent = t("spokenBegin");
    spokenOf = state.answer;
    return;
  }
  if (!spokenOf) return;
  spokenOf = null;
  const last = state.messages.at(-1);
  const text = last?.role === "assistant" ? last.content : "";
  byId("spoken").textContent = text.length > LONGEST_SPOKEN ? t("spokenLong") : `${t("spokenDone")} ${text}`;
}

const KEYS = {
  "/": sidebar.focusSearch, n: sidebar.begin, m: models.openModels, p: panel.togglePanel, i: composer.focusField, "?": showShortcuts,
}; // prettier-ignore

function key(event) {
  if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (document.body.classList.contains("sidebar-open")) sidebar.openSidebar(false);
    else if (state.answer) chat.stop();
    return;
  }
  const writing = event.target.closest?.("input, textarea, select, [popover]");
  if (writing || event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
}

begin();
