// What stands in a line of markdown: emphasis, code, links, math. A tree of plain objects comes out.

const LINKS = /^(?:https?:\/\/|mailto:)/i;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const BARE_LINK = /^https?:\/\/[^\s<>"'`\u3000-\u303F\uFF00-\uFFEF]+/i;
const LONGEST_LINK = 2048;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00A0" };

/** The address if it is one that a link may have, else "". */
export function safeAddress(text) {
  const address = text.trim();
  // eslint-disable-next-line no-control-regex
  return LINKS.test(address) && address.length <= LONGEST_LINK && !/[\u0000-\u0020\u007F]/.test(address) ? address : "";
}

/**
 * Nodes: `{type: "text", text}`, `strong`, `em`, `del` (with `children`), `code` and `math` (with `text`), `link`
 * (`href`, `children`), `image` (`href`, `text`: never loaded), `break`. `breaks`: `<br>` is a break, as in tables.
 */
export function parseInline(text, { breaks = false } = {}) {
  return new Line(text, breaks).parse();
}

class Line {
  constructor(text, breaks) {
    this.text = text;
    this.breaks = breaks;
    this.at = 0;
    this.parts = []; // nodes, and marks that may turn into emphasis or links
    this.brackets = [];
    this.noEnd = new Map(); // runs of back quotes, and math marks, whose end was looked for in vain
  }

  parse() {
    while (this.at < this.text.length) this.#step();
    return emphasised(this.parts);
  }

  #step() {
    const char = this.text[this.at];
    const done =
      (char === "\\" && this.#escape()) ||
      (char === "`" && this.#code()) ||
      (char === "$" && this.#dollars()) ||
      ((char === "*" || char === "_" || char === "~") && this.#mark(char)) ||
      (char === "[" && this.#open(false)) ||
      (char === "!" && this.text[this.at + 1] === "[" && this.#open(true)) ||
      (char === "]" && this.#close()) ||
      (char === "<" && this.#angle()) ||
      ((char === "h" || char === "H") && this.#bare()) ||
      (char === "&" && this.#entity()) ||
      (char === "\n" && this.#newline());
    if (!done) this.#plain();
  }

  #add(node, length) {
    this.parts.push(node);
    this.at += length;
    return true;
  }

  #say(text, length) {
    const last = this.parts.at(-1);
    if (last?.type === "text" && !last.mark) {
      last.text += text;
      this.at += length;
      return true;
    }
    return this.#add({ type: "text", text }, length);
  }

  #plain() {
    let end = this.at + 1;
    while (end < this.text.length && !"\\`$*_~[]!<hH&\n".includes(this.text[end])) end++;
    this.#say(this.text.slice(this.at, end), end - this.at);
  }

  #escape() {
    const next = this.text[this.at + 1];
    if (next === "(") return this.#mathUntil("\\(", "\\)") || this.#say("(", 2);
    if (next === "[") return this.#mathUntil("\\[", "\\]") || this.#say("[", 2);
    if (next === "\n") return this.#add({ type: "break" }, 2);
    return next !== undefined && ESCAPABLE.test(next) && this.#say(next, 2);
  }

  /** The place of `mark` from `from` on; each is sought in vain only once, so that hostile text costs no more. */
  #find(mark, from) {
    if (this.noEnd.get(mark)) return -1;
    const at = this.text.indexOf(mark, from);
    if (at < 0) this.noEnd.set(mark, true);
    return at;
  }

  #code() {
    const run = /^`+/.exec(this.text.slice(this.at, this.at + 64))[0];
    let end = this.#find(run, this.at + run.length);
    while (end >= 0 && this.text[end + run.length] === "`") {
      while (this.text[end] === "`") end++;
      end = this.#find(run, end);
    }
    if (end < 0) return this.#say(run, run.length);
    const code = this.text.slice(this.at + run.length, end).replace(/\n/g, " ");
    const padded = code.length > 2 && code[0] === " " && code.at(-1) === " " && code.trim() !== "";
    return this.#add({ type: "code", text: padded ? code.slice(1, -1) : code }, end + run.length - this.at);
  }

  #mathUntil(open, close) {
    const end = this.#find(close, this.at + open.length);
    if (end < 0) return false;
    const tex = this.text.slice(this.at + open.length, end).trim();
    if (!tex) return false;
    return this.#add({ type: "math", text: tex, display: open !== "\\(" && open !== "$" }, end + close.length - this.at);
  }

  /** `$x$` is math where no space is inside the marks and no digit follows: sums of money stay what they are. */
  #dollars() {
    if (this.text.startsWith("$$", this.at)) return this.#mathUntil("$$", "$$") || this.#say("$$", 2);
    if (/\s/.test(this.text[this.at + 1] ?? " ")) return this.#say("$", 1);
    const end = this.#find("$", this.at + 1);
    if (end < 0 || this.text[end - 1] === "\\" || /\s/.test(this.text[end - 1]) || /\d/.test(this.text[end + 1] ?? "")) {
      return this.#say("$", 1);
    }
    return this.#mathUntil("$", "$");
  }

  #mark(char) {
    let end = this.at;
    while (this.text[end] === char) end++;
    const count = end - this.at;
    const before = this.text[this.at - 1] ?? " ";
    const after = this.text[end] ?? " ";
    if (char === "~" && count !== 2) return this.#say(char.repeat(count), count);
    const left = !/\s/.test(after) && (!punctuation(after) || /\s/.test(before) || punctuation(before) || cjk(before));
    const right = !/\s/.test(before) && (!punctuation(before) || /\s/.test(after) || punctuation(after) || cjk(after));
    const opens = char === "_" ? left && (!right || punctuation(before)) : left;
    const closes = char === "_" ? right && (!left || punctuation(after)) : right;
    return this.#add({ type: "text", text: char.repeat(count), mark: char, count, opens, closes }, count);
  }

  #open(image) {
    const text = image ? "![" : "[";
    const part = { type: "text", text, mark: "[", count: 0, opens: false, closes: false };
    this.brackets.push({ image, part, index: this.parts.length });
    return this.#add(part, text.length);
  }

  #close() {
    const bracket = this.brackets.pop();
    const target = bracket && linkTarget(this.text, this.at + 1);
    if (!target) return this.#say("]", 1);
    const children = emphasised(this.parts.splice(bracket.index).slice(1));
    this.at = target.next;
    const href = safeAddress(target.address);
    const text = plainText(children);
    if (bracket.image) this.parts.push({ type: "image", href, text });
    else if (href) this.parts.push({ type: "link", href, children: withoutLinks(children) });
    else this.parts.push(...children, { type: "text", text: target.address ? ` (${target.address})` : "" });
    return true;
  }

  #angle() {
    if (this.breaks) {
      const tag = /^<br ?\/?>/i.exec(this.text.slice(this.at, this.at + 6));
      if (tag) return this.#add({ type: "break" }, tag[0].length);
    }
    const end = this.text.slice(this.at, this.at + LONGEST_LINK).indexOf(">");
    const inside = end < 0 ? "" : this.text.slice(this.at + 1, this.at + end);
    const href = safeAddress(inside);
    return href !== "" && this.#add({ type: "link", href, children: [{ type: "text", text: inside }] }, end + 1);
  }

  #bare() {
    if (/\w/.test(this.text[this.at - 1] ?? " ")) return false;
    const found = BARE_LINK.exec(this.text.slice(this.at, this.at + LONGEST_LINK));
    if (!found) return false;
    let address = found[0].replace(/[.,;:!?*_~]+$/, "");
    while (address.endsWith(")") && count(address, ")") > count(address, "(")) address = address.slice(0, -1);
    if (address.endsWith("]") && this.brackets.length) address = address.replace(/\]+$/, "");
    const href = safeAddress(address);
    return href !== "" && this.#add({ type: "link", href, children: [{ type: "text", text: address }] }, address.length);
  }

  #entity() {
    const found = /^&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-z]{2,4}));/.exec(this.text.slice(this.at, this.at + 12));
    if (!found) return false;
    const number = found[1] ? parseInt(found[1], 10) : found[2] ? parseInt(found[2], 16) : 0;
    const known = number ? (number <= 0x10ffff ? String.fromCodePoint(number) : "") : ENTITIES[found[3]];
    return known ? this.#say(known, found[0].length) : false;
  }

  #newline() {
    const last = this.parts.at(-1);
    const hard = last?.type === "text" && / {2,}$/.test(last.text.slice(-4));
    if (last?.type === "text" && !last.mark) last.text = last.text.trimEnd();
    return hard ? this.#add({ type: "break" }, 1) : this.#say("\n", 1);
  }
}

const count = (text, char) => text.split(char).length - 1;
const punctuation = (char) => /[\p{P}\p{S}]/u.test(char);
// Chinese and Japanese have no spaces around emphasis: `**“重点”**后面` is meant as emphasis.
const cjk = (char) => /[\u2E80-\u9FFF\uF900-\uFAFF\uFF00-\uFFEF\u3000-\u303F]/.test(char);

/** `(address "title")` at `at`: the address and what follows; null where it is none. The title is left out. */
function linkTarget(text, at) {
  if (text[at] !== "(") return null;
  const found = /^\(\s*(?:<([^<>\n]*)>|([^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*))(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/.exec(
    text.slice(at, at + LONGEST_LINK),
  );
  return found && { address: found[1] ?? found[2], next: at + found[0].length };
}

/** Marks in `parts` that belong together become nodes; those that do not become text. As in CommonMark. */
function emphasised(parts) {
  const openers = [];
  const result = [];
  for (const part of parts) {
    if (!part.mark || part.mark === "[") {
      result.push(part);
      continue;
    }
    let left = part.count;
    while (part.closes && left > 0) {
      const index = openers.findLastIndex((opener) => opener.part.mark === part.mark && opener.part.count > 0);
      if (index < 0) break;
      const { part: opener, place } = openers[index];
      const width = opener.count >= 2 && left >= 2 ? 2 : 1;
      openers.length = index + 1;
      const children = merged(result.splice(place + 1));
      if (!children.length) {
        openers.pop();
        break;
      }
      const type = part.mark === "~" ? "del" : width === 2 ? "strong" : "em";
      opener.count -= width;
      opener.text = opener.mark.repeat(opener.count);
      left -= width;
      result.push({ type, children });
      if (opener.count === 0) {
        result.splice(place, 1);
        openers.pop();
      }
    }
    if (left > 0) {
      const rest = { ...part, text: part.mark.repeat(left), count: left };
      if (part.opens && openers.length < 64) openers.push({ part: rest, place: result.length });
      result.push(rest);
    }
  }
  return merged(result);
}

/** Neighbouring texts as one, marks among them. */
function merged(nodes) {
  const result = [];
  for (const node of nodes) {
    if (node.type !== "text") result.push(node);
    else if (node.text === "") continue;
    else if (result.at(-1)?.type === "text") result.at(-1).text += node.text;
    else result.push({ type: "text", text: node.text });
  }
  return result;
}

/** What a reader sees of nodes, without their form. */
export function plainText(nodes) {
  return nodes.map((node) => (node.children ? plainText(node.children) : (node.text ?? " "))).join("");
}

const withoutLinks = (nodes) =>
  nodes.flatMap((node) => {
    if (node.type === "link") return withoutLinks(node.children);
    return [node.children ? { ...node, children: withoutLinks(node.children) } : node];
  });
