// Light or dark, and the language: as the system and the browser say, unless chosen otherwise here.

import { hasKey, useKey } from "./api.js";
import { prompt, showShortcuts, toast } from "./dialogs.js";
import { LANGUAGES, firstKnown, language, setLanguage, t } from "./language.js";
import { openMenu } from "./menus.js";
import { preference, remember } from "./preferences.js";
import { tell } from "./state.js";

export function applyLooks() {
  const theme = preference("theme", "");
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  setLanguage(preference("language", "") || firstKnown(navigator.languages ?? [navigator.language]));
  document.documentElement.lang = language() === "zh" ? "zh-CN" : "en";
  document.getElementById("skip").textContent = t("skip");
}

function choose(name, value) {
  remember(name, value);
  applyLooks();
  tell(name);
}

export function settingsMenu(button) {
  const theme = preference("theme", "");
  const themes = { "": "themeSystem", light: "themeLight", dark: "themeDark" };
  openMenu(button, [
    t("language"),
    ...Object.entries(LANGUAGES).map(([code, name]) => ({ label: name, checked: language() === code, action: () => choose("language", code) })),
    t("theme"),
    ...Object.entries(themes).map(([code, text]) => ({ label: t(text), checked: theme === code, action: () => choose("theme", code) })),
    t("more"),
    { label: t("keyboard"), icon: "info", action: showShortcuts },
    { label: hasKey() ? t("keyForget") : t("keyEnter"), icon: "key", action: changeKey },
  ]);
}

async function changeKey() {
  if (hasKey()) {
    useKey("");
    toast(t("keyForgotten"));
  } else if (await askForKey()) {
    tell("key");
  }
}

let asking = null;

/** Asks for the server's key; several requests that want one ask once. True when there is one to try. */
export function askForKey(failure) {
  asking ??= prompt(t("keyHeading"), t("key"), {
    secret: true, action: t("keyUse"), text: t("keyText"), warning: failure && hasKey() ? t("keyWrong") : "",
  }).then((key) => {
    asking = null;
    if (key) useKey(key);
    return Boolean(key);
  }); // prettier-ignore
  return asking;
}
