// The tree of `markdown.js` as nodes. Nothing that a model writes is ever read as HTML, and nothing is loaded.

import { colouredCode } from "./code_colours.js";
import { copyText, el } from "./dom.js";
import { icon } from "./icons.js";
import { parseMarkdown } from "./markdown.js";
import { parseMath } from "./math.js";
import { t } from "./language.js";

const MATHML = "http://www.w3.org/1998/Math/MathML";

/** Text that may grow: `show` draws again only the blocks that have changed, so what is selected stays selected. */
export class MarkdownView {
  #drawn = [];

  constructor(node) {
    this.node = node;
  }

  show(text) {
    const blocks = parseMarkdown(text);
    blocks.forEach((block, at) => {
      const drawn = this.#drawn[at];
      // A code block looks the same before and after its last line is complete, but its source does not.
      if (drawn?.source === block.source && drawn.type === block.type) return;
      const node = blockNode(block);
      if (drawn) drawn.node.replaceWith(node);
      else this.node.append(node);
      this.#drawn[at] = { source: block.source, type: block.type, node };
    });
    for (const gone of this.#drawn.splice(blocks.length)) gone.node.remove();
  }
}

function blockNode(block) {
  switch (block.type) {
    case "heading":
      // The page has headings of its own above: those of an answer begin at the third level.
      return el(`h${Math.min(block.level + 2, 6)}`, { class: `level-${block.level}` }, inline(block.inline));
    case "code":
      return codeNode(block);
    case "math":
      return mathNode(block.tex, true);
    case "quote":
      return el("blockquote", {}, block.blocks.map(blockNode));
    case "list":
      return listNode(block);
    case "table":
      return tableNode(block);
    case "rule":
      return el("hr");
    default:
      return el("p", {}, inline(block.inline));
  }
}

function codeNode(block) {
  const code = el("code", {}, colouredCode(block.text, block.language));
  const copy = el("button", { type: "button", class: "quiet small", "aria-label": t("copyCode"), title: t("copyCode") }, icon("copy"));
  copy.addEventListener("click", async () => {
    if (!(await copyText(block.text))) return;
    copy.replaceChildren(icon("check"));
    setTimeout(() => copy.replaceChildren(icon("copy")), 1500);
  });
  const head = el("div", { class: "code-head" }, el("span", {}, block.language || t("code")), copy);
  return el("div", { class: "code" }, head, el("pre", { tabindex: "0" }, code));
}

function listNode(block) {
  const items = block.items.map((item) => {
    const inside = item.blocks.map((inner) =>
      !block.loose && inner.type === "paragraph" ? el("span", {}, inline(inner.inline)) : blockNode(inner),
    );
    if (!item.task) return el("li", {}, inside);
    const box = el("input", { type: "checkbox", disabled: true, checked: item.task === "done", "aria-label": t(item.task === "done" ? "taskDone" : "taskOpen") });
    return el("li", { class: "task" }, box, inside);
  });
  return el(block.ordered ? "ol" : "ul", block.ordered && block.start !== 1 ? { start: block.start } : {}, items);
}

function tableNode(block) {
  const row = (cells, tag) =>
    el("tr", {}, cells.map((cell, at) => el(tag, { class: block.align[at] || null, scope: tag === "th" ? "col" : null }, inline(cell))));
  const table = el("table", {}, el("thead", {}, row(block.head, "th")), el("tbody", {}, block.rows.map((cells) => row(cells, "td"))));
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": t("table") }, table);
}

function inline(nodes) {
  return nodes.map((node) => {
    switch (node.type) {
      case "strong":
      case "em":
      case "del":
        return el(node.type, {}, inline(node.children));
      case "code":
        return el("code", {}, node.text);
      case "math":
        return mathNode(node.text, node.display);
      case "link":
        return el("a", { href: node.href, title: node.href, target: "_blank", rel: "noopener noreferrer nofollow" }, inline(node.children));
      case "image":
        return imageNode(node);
      case "break":
        return el("br");
      default:
        return node.text;
    }
  });
}

/** A picture elsewhere would tell its server who reads this: it becomes a link. */
function imageNode(node) {
  const text = node.text || t("picture");
  const attributes = { href: node.href, title: node.href, target: "_blank", rel: "noopener noreferrer nofollow" };
  return node.href ? el("a", { class: "outside", ...attributes }, icon("image"), text) : el("span", { class: "outside" }, icon("image"), text);
}

function mathNode(tex, display) {
  const tree = parseMath(tex, display);
  const node = tree ? mathElement(tree) : el("code", { class: "tex" }, tex);
  return display ? el("div", { class: "math", tabindex: "0", title: tex }, node) : el("span", { class: "math", title: tex }, node);
}

function mathElement(tree) {
  const node = document.createElementNS(MATHML, tree.tag);
  for (const [name, value] of Object.entries(tree.attributes)) node.setAttribute(name, value);
  if (tree.children) node.append(...tree.children.map(mathElement));
  else node.append(tree.text);
  return node;
}
