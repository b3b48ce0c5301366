// What this browser remembers: looks and habits. Never a key, never a word of a conversation.

const NAME = "bendi";

/** Where the browser keeps nothing (private windows, blocked storage), everything still works until the page is left. */
let memory = {};
try {
  const found = JSON.parse(localStorage.getItem(NAME) ?? "{}");
  if (found && typeof found === "object" && !Array.isArray(found)) memory = found;
} catch {
  memory = {};
}

export const preference = (name, otherwise) => (typeof memory[name] === typeof otherwise ? memory[name] : otherwise);

export function remember(name, value) {
  memory[name] = value;
  try {
    localStorage.setItem(NAME, JSON.stringify(memory));
  } catch {
    // Kept in memory only.
  }
}
