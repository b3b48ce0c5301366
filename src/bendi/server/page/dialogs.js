// Windows over the page: questions, a key, the keyboard. Each gives back a promise of what was chosen.

import { el, replace } from "./dom.js";
import { icon } from "./icons.js";
import { t } from "./language.js";

/** A dialog with a heading; removed when closed. `fill(close)` gives its content. Resolves with what `close` was given. */
export function openDialog(heading, fill, { wide = false, name = "" } = {}) {
  const before = document.activeElement;
  return new Promise((resolve) => {
    const id = `heading-${Math.random().toString(36).slice(2)}`;
    const dialog = el("dialog", { class: `${wide ? "wide " : ""}${name}`.trim() || null, "aria-labelledby": id });
    let result;
    const close = (value) => {
      result = value;
      dialog.close();
    };
    const shut = el("button", { type: "button", class: "quiet", "aria-label": t("close"), title: t("close"), onclick: () => close() }, icon("close"));
    replace(dialog, el("header", {}, el("h2", { id }, heading), shut), fill(close));
    dialog.addEventListener("close", () => {
      dialog.remove();
      before?.focus?.();
      resolve(result);
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) close();
    });
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("[data-first]")?.focus();
  });
}

const row = (...buttons) => el("div", { class: "choices" }, buttons);

/** True when it was agreed to. `danger`: what cannot be undone. */
export function confirm(heading, text, action, { danger = false } = {}) {
  return openDialog(heading, (close) => [
    el("p", {}, text),
    row(
      el("button", { type: "button", onclick: () => close(false) }, t("cancel")),
      el("button", { type: "button", class: danger ? "danger" : "main", "data-first": true, onclick: () => close(true) }, action),
    ),
  ]);
}

/** The text that was typed, undefined when it was not wanted after all. `secret`: a key. */
export function prompt(heading, label, { value = "", action, secret = false, text = "", warning = "" } = {}) {
  return openDialog(heading, (close) => {
    const field = el("input", {
      type: secret ? "password" : "text", "data-first": true, autocomplete: "off", spellcheck: "false", required: true,
      autocapitalize: "off",
    }); // prettier-ignore
    field.value = value;
    field.addEventListener("focus", () => field.select(), { once: true });
    const form = el(
      "form",
      { method: "dialog" },
      text && el("p", {}, text),
      warning && el("p", { class: "warning", role: "alert" }, warning),
      el("label", {}, el("span", {}, label), field),
      row(
        el("button", { type: "button", onclick: () => close() }, t("cancel")),
        el("button", { type: "submit", class: "main" }, action ?? t("save")),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (field.value.trim()) close(field.value.trim());
    });
    return form;
  });
}

const SHORTCUTS = [
  [["Enter"], "keySend"], [["Shift", "Enter"], "keyLine"], [["Esc"], "keyStop"], [["↑"], "keyEdit"], [["/"], "keySearch"],
  [["n"], "keyNew"], [["m"], "keyModels"], [["p"], "keyPanel"], [["i"], "keyWrite"], [["?"], "keyHelp"],
]; // prettier-ignore

export function showShortcuts() {
  return openDialog(t("keyboard"), () =>
    el(
      "dl",
      { class: "shortcuts" },
      SHORTCUTS.map(([keys, text]) => [el("dt", {}, keys.map((key) => el("kbd", {}, key))), el("dd", {}, t(text))]),
    ),
  );
}

/** A sentence that goes by itself. `problem`: stays longer. */
export function toast(text, { problem = false } = {}) {
  const node = el("div", { class: problem ? "toast problem" : "toast" }, icon(problem ? "warn" : "info"), el("span", {}, text));
  const shut = el("button", { type: "button", class: "quiet small", "aria-label": t("close"), onclick: () => node.remove() }, icon("close"));
  node.append(shut);
  document.getElementById("toasts").append(node);
  setTimeout(() => node.remove(), problem ? 15_000 : 5_000);
}

/** Runs `work`; an error is shown, not thrown. */
export async function shown(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") toast(error.message, { problem: true });
    return undefined;
  }
}
