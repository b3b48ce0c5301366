// Menus that open at a button: arrow keys, Enter, Esc, and a click elsewhere closes them.

import { el } from "./dom.js";
import { icon } from "./icons.js";

/**
 * Opens a menu at `button`. `entries`: `{label, detail, icon, checked, danger, action}`, or a string for a heading;
 * null parts them.
 */
export function openMenu(button, entries, label) {
  const items = entries.filter(Boolean).map((entry) => (typeof entry === "string" ? el("div", { class: "menu-heading" }, entry) : item(entry)));
  const menu = el("div", { class: "menu", role: "menu", popover: "auto", "aria-label": label ?? button.getAttribute("aria-label") }, items);
  const buttons = items.filter((node) => node.tagName === "BUTTON");
  menu.addEventListener("keydown", (event) => walk(event, buttons));
  menu.addEventListener("click", (event) => {
    if (event.target.closest("button")) menu.hidePopover();
  });
  menu.addEventListener("toggle", (event) => {
    if (event.newState !== "closed") return;
    button.setAttribute("aria-expanded", "false");
    if (menu.contains(document.activeElement) || document.activeElement === document.body) button.focus();
    menu.remove();
  });
  document.body.append(menu);
  menu.showPopover();
  place(menu, button);
  button.setAttribute("aria-expanded", "true");
  (buttons.find((node) => node.getAttribute("aria-checked") === "true") ?? buttons[0])?.focus();
}

function item(entry) {
  const choice = entry.checked !== undefined;
  return el(
    "button",
    {
      type: "button", role: choice ? "menuitemradio" : "menuitem", "aria-checked": choice ? String(entry.checked) : null,
      class: entry.danger ? "danger-text" : null, onclick: entry.action, tabindex: "-1",
    },
    entry.icon ? icon(entry.icon) : choice ? el("span", { class: "tick" }, entry.checked ? icon("check") : null) : null,
    el("span", { class: "menu-text" }, el("span", {}, entry.label), entry.detail ? el("small", {}, entry.detail) : null),
    entry.dot ? el("span", { class: "dot", title: entry.dot }) : null,
  ); // prettier-ignore
}

function walk(event, buttons) {
  const at = buttons.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1 + buttons.length, Home: 0, End: buttons.length - 1 }[event.key];
  if (to !== undefined) {
    event.preventDefault();
    buttons[to % buttons.length]?.focus();
  } else if (event.key === "Tab") {
    event.preventDefault();
  } else if (event.key.length === 1 && event.key !== " " && !event.ctrlKey && !event.metaKey) {
    const wanted = event.key.toLowerCase();
    const order = [...buttons.slice(at + 1), ...buttons.slice(0, at + 1)];
    order.find((node) => node.textContent.trim().toLowerCase().startsWith(wanted))?.focus();
  }
  event.stopPropagation();
}

/** Below the button, or above where there is more room; within the window. */
function place(menu, button) {
  const at = button.getBoundingClientRect();
  const box = menu.getBoundingClientRect();
  const below = innerHeight - at.bottom > box.height + 12 || at.top < box.height + 12;
  const left = Math.max(8, Math.min(at.left, innerWidth - box.width - 8));
  menu.style.setProperty("left", `${left}px`);
  if (below) menu.style.setProperty("top", `${Math.min(at.bottom + 6, innerHeight - box.height - 8)}px`);
  else menu.style.setProperty("top", `${Math.max(8, at.top - box.height - 6)}px`);
}
