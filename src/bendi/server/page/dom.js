// Building nodes. Text goes in as text: there is no way here to make HTML of it.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element: `el("button", { class: "quiet", onclick: stop, "aria-label": name }, icon("stop"), "Stop")`.
 * A name that begins with `on` takes a function. Children may be nodes, texts, lists, or null.
 */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same in the namespace of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** `node` with other children. */
export function replace(node, ...children) {
  node.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/**
 * The same, but children that look as before are left alone: they keep the focus, what is selected in them, and a
 * press of a button that has only begun.
 */
export function renew(node, ...children) {
  const wanted = children.flat(3).filter(Boolean);
  wanted.forEach((child, at) => {
    const old = node.children[at];
    if (!old) node.append(child);
    else if (!old.isEqualNode(child)) old.replaceWith(child);
  });
  while (node.children.length > wanted.length) node.lastElementChild.remove();
}

export const byId = (id) => document.getElementById(id);

/** Copies text; true when it was done. Without a secure context a hidden field does it. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = el("textarea", { class: "unseen", readonly: true });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

/** Gives a text to the browser as a file. */
export function saveFile(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
