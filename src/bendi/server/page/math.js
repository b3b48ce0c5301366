// The LaTeX that models write most, as a tree of MathML elements: `{tag, text}` or `{tag, attributes, children}`.
//
// What is not known makes the whole formula null: it is then shown as it was written, never half of it.

import { ACCENTS, ALPHABETS, FUNCTIONS, LARGE, OPERATORS, SPACES, SYMBOLS } from "./math_symbols.js";

const DEEPEST = 40;
const LONGEST = 8000;
const MATRICES = {
  matrix: ["", ""], smallmatrix: ["", ""], pmatrix: ["(", ")"], bmatrix: ["[", "]"], Bmatrix: ["{", "}"],
  vmatrix: ["|", "|"], Vmatrix: ["‖", "‖"], cases: ["{", ""], array: ["", ""],
  aligned: ["", ""], align: ["", ""], "align*": ["", ""], split: ["", ""], gathered: ["", ""], equation: ["", ""],
  "equation*": ["", ""],
}; // prettier-ignore
const DELIMITERS = {
  "(": "(", ")": ")", "[": "[", "]": "]", "|": "|", "/": "/", ".": "", "\\{": "{", "\\}": "}", "\\|": "‖", "<": "⟨", ">": "⟩",
  "\\langle": "⟨", "\\rangle": "⟩", "\\lfloor": "⌊", "\\rfloor": "⌋", "\\lceil": "⌈", "\\rceil": "⌉", "\\vert": "|",
  "\\Vert": "‖", "\\lvert": "|", "\\rvert": "|", "\\lVert": "‖", "\\rVert": "‖", "\\lbrace": "{", "\\rbrace": "}",
}; // prettier-ignore

class NotUnderstood extends Error {}

/** The `math` element for `tex`, or null where something in it is not known. `display`: on a line of its own. */
export function parseMath(tex, display = false) {
  if (tex.length > LONGEST) return null;
  try {
    const formula = new Formula(tex, display);
    const row = formula.row(null);
    return element("math", [row], { display: display ? "block" : "inline" });
  } catch (error) {
    if (error instanceof NotUnderstood) return null;
    throw error;
  }
}

const element = (tag, children, attributes = {}) => ({ tag, attributes, children });
const leaf = (tag, text, attributes = {}) => ({ tag, attributes, text });
const operator = (text, attributes = {}) => leaf("mo", text, attributes);
const grouped = (nodes) => (nodes.length === 1 ? nodes[0] : element("mrow", nodes));

class Formula {
  constructor(tex, display) {
    this.tokens = tex.match(/\\[a-zA-Z]+\*?|\\[\s\S]|[0-9]+(?:[.,][0-9]+)*|\s+|[\s\S]/gu) ?? [];
    this.at = 0;
    this.depth = 0;
    this.display = display;
  }

  #space() {
    while (this.at < this.tokens.length && /^\s/.test(this.tokens[this.at])) this.at++;
  }

  #next() {
    this.#space();
    return this.tokens[this.at];
  }

  #expect(token) {
    if (this.#next() !== token) throw new NotUnderstood();
    this.at++;
  }

  /** Everything up to a token that `ends` accepts, which is left; null: to the end. */
  row(ends) {
    if (++this.depth > DEEPEST) throw new NotUnderstood();
    const nodes = [];
    for (;;) {
      const token = this.#next();
      if (token === undefined) {
        if (ends) throw new NotUnderstood();
        break;
      }
      if (ends?.(token)) break;
      nodes.push(...this.#scripted());
    }
    this.depth--;
    return grouped(nodes);
  }

  /** An atom with what stands above and below it. */
  #scripted() {
    const limits = this.display && LARGE.has(this.#next());
    const token = this.#next();
    const base = token === "^" || token === "_" ? element("mrow", []) : this.#atom();
    if (base === null) return [];
    let below = null;
    let above = null;
    let stacked = (limits && !/int/.test(token)) || base.stacked === true;
    for (;;) {
      const mark = this.#next();
      if (mark === "\\limits") stacked = true;
      else if (mark === "\\nolimits") stacked = false;
      else if (mark === "_" && below === null) below = "next";
      else if (mark === "^" && above === null) above = "next";
      else if (mark === "'") above = this.#primes(above);
      else break;
      if (mark !== "'") this.at++;
      if (below === "next") below = this.#argument();
      if (above === "next") above = this.#argument();
    }
    if (below === null && above === null) return [base];
    const tag = below === null ? ["msup", "mover"] : above === null ? ["msub", "munder"] : ["msubsup", "munderover"];
    return [element(tag[stacked ? 1 : 0], [base, below, above].filter((node) => node !== null))];
  }

  #primes(above) {
    let count = 0;
    while (this.tokens[this.at] === "'") {
      this.at++;
      count++;
    }
    const primes = operator("′".repeat(count));
    return above === null ? primes : element("mrow", [above, primes]);
  }

  /** `{...}` or a single atom. */
  #argument() {
    if (++this.depth > DEEPEST) throw new NotUnderstood();
    const token = this.#next();
    if (token === undefined || "}&^_".includes(token)) throw new NotUnderstood();
    if (token.length > 1 && /^\d/.test(token)) {
      // `x^10` is x^1 followed by 0.
      this.tokens.splice(this.at, 1, token[0], token.slice(1));
    }
    const node = this.#atom();
    this.depth--;
    return node ?? element("mrow", []);
  }

  /** The text within `{...}`, as it is written. */
  #text() {
    this.#expect("{");
    let text = "";
    let open = 1;
    while (this.at < this.tokens.length) {
      const token = this.tokens[this.at++];
      if (token === "{") open++;
      if (token === "}" && --open === 0) return text;
      text += token === "{" || token === "}" ? "" : /^\\[^a-zA-Z]$/.test(token) ? token[1] : token;
    }
    throw new NotUnderstood();
  }

  /** One thing; null for what is not seen. */
  #atom() {
    const token = this.#next();
    if (token === undefined || token === "}" || token === "&") throw new NotUnderstood();
    this.at++;
    if (token === "{") {
      const row = this.row((next) => next === "}");
      this.at++;
      return row;
    }
    if (token[0] === "\\") return this.#command(token);
    if (/^\d/.test(token)) return leaf("mn", token);
    if (/^\p{L}$/u.test(token)) return leaf("mi", token);
    if ("()[]|".includes(token)) return operator(token, { stretchy: "false" });
    return operator({ "-": "−", "*": "∗", "~": "\u00A0" }[token] ?? token);
  }

  #command(token) {
    const name = token.slice(1);
    if (Object.hasOwn(SYMBOLS, name)) return leaf("mi", SYMBOLS[name], /^[A-Z]/.test(name) ? { mathvariant: "normal" } : {});
    if (Object.hasOwn(OPERATORS, name)) return operator(OPERATORS[name]);
    if (Object.hasOwn(SPACES, name)) return element("mspace", [], { width: SPACES[name] });
    if (Object.hasOwn(ALPHABETS, name)) return this.#alphabet(name);
    if (Object.hasOwn(ACCENTS, name)) return this.#accent(name);
    if (FUNCTIONS.has(name)) return { ...leaf("mi", name.replace(/\*$/, "")), stacked: this.display && /^(lim|max|min|sup|inf|arg)/.test(name) };
    if (Object.hasOwn(COMMANDS, name)) return COMMANDS[name](this, name, this.#tools());
    if (Object.hasOwn(DELIMITERS, token)) return operator(DELIMITERS[token], { stretchy: "false" });
    if (/^[%$#&_{} ]$/.test(name)) return name === " " ? element("mspace", [], { width: "0.25em" }) : operator(name);
    throw new NotUnderstood();
  }

  #tools() {
    return { argument: () => this.#argument(), text: () => this.#text(), next: () => this.#next(), expect: (token) => this.#expect(token) };
  }

  #alphabet(name) {
    if (ALPHABETS[name] === "text") return leaf("mtext", this.#text());
    const inner = this.#argument();
    return withAlphabet(inner, ALPHABETS[name]);
  }

  #accent(name) {
    const [tag, mark] = ACCENTS[name];
    const node = element(tag, [this.#argument(), operator(mark, { stretchy: /over|under|wide/.test(name) ? "true" : "false" })]);
    return { ...node, attributes: tag === "mover" ? { accent: "true" } : {}, stacked: /brace/.test(name) };
  }
}

/** Letters in another alphabet: bold, upright, blackboard, calligraphic. `kind`: where in Unicode it begins, or a name. */
function withAlphabet(node, kind) {
  if (node.children) return { ...node, children: node.children.map((child) => withAlphabet(child, kind)) };
  if (node.tag === "mo") return node;
  const text = [...node.text].map((char) => inAlphabet(char, kind)).join("");
  return { ...node, text, attributes: kind === "upright" || text !== node.text ? { mathvariant: "normal" } : node.attributes };
}

const HOLES = {
  double: { C: "ℂ", H: "ℍ", N: "ℕ", P: "ℙ", Q: "ℚ", R: "ℝ", Z: "ℤ" },
  script: { B: "ℬ", E: "ℰ", F: "ℱ", H: "ℋ", I: "ℐ", L: "ℒ", M: "ℳ", R: "ℛ", e: "ℯ", g: "ℊ", o: "ℴ" },
  fraktur: { C: "ℭ", H: "ℌ", I: "ℑ", R: "ℜ", Z: "ℨ" },
};
const STARTS = { bold: 0x1d400, script: 0x1d49c, fraktur: 0x1d504, double: 0x1d538 };
const DIGITS = { bold: 0x1d7ce, double: 0x1d7d8 };

function inAlphabet(char, kind) {
  if (kind === "upright") return char;
  const hole = HOLES[kind]?.[char];
  if (hole) return hole;
  if (/[A-Z]/.test(char)) return String.fromCodePoint(STARTS[kind] + char.charCodeAt(0) - 65);
  if (/[a-z]/.test(char)) return String.fromCodePoint(STARTS[kind] + 26 + char.charCodeAt(0) - 97);
  if (/\d/.test(char) && DIGITS[kind]) return String.fromCodePoint(DIGITS[kind] + Number(char));
  return char;
}

function fraction(_formula, name, { argument }) {
  const node = element("mfrac", [argument(), argument()], /binom/.test(name) ? { linethickness: "0" } : {});
  return /binom/.test(name) ? element("mrow", [operator("("), node, operator(")")]) : node;
}

function root(formula, _name, { argument, next }) {
  if (next() !== "[") return element("msqrt", [argument()]);
  formula.at++;
  const degree = formula.row((token) => token === "]");
  formula.at++;
  return element("mroot", [argument(), degree]);
}

function delimiter(formula, next) {
  const mark = DELIMITERS[next()];
  if (mark === undefined) throw new NotUnderstood();
  formula.at++;
  return mark;
}

function fenced(formula, _name, { next }) {
  const parts = [operator(delimiter(formula, next), { stretchy: "true", fence: "true" })];
  for (;;) {
    parts.push(formula.row((token) => token === "\\right" || token === "\\middle"));
    const end = formula.tokens[formula.at++];
    parts.push(operator(delimiter(formula, next), { stretchy: "true", fence: "true" }));
    if (end === "\\right") return element("mrow", parts.filter((part) => part.tag !== "mo" || part.text !== ""));
  }
}

function sized(formula, _name, { next }) {
  return operator(delimiter(formula, next), { stretchy: "false" });
}

function environment(formula, _name, { text, expect, next }) {
  const kind = text();
  if (!Object.hasOwn(MATRICES, kind)) throw new NotUnderstood();
  if (kind === "array") {
    next();
    text();
  }
  const rows = [[]];
  for (;;) {
    rows.at(-1).push(element("mtd", [formula.row((token) => token === "&" || token === "\\\\" || token === "\\end")]));
    const end = formula.tokens[formula.at++];
    if (end === "\\\\") rows.push([]);
    if (end === "\\end") break;
  }
  if (text() !== kind) throw new NotUnderstood();
  const empty = (row) => row.every((cell) => cell.children[0].children?.length === 0);
  if (rows.length > 1 && empty(rows.at(-1))) rows.pop();
  const style = /^(cases|align|split|array)/.test(kind) ? { class: /^(align|split)/.test(kind) ? "aligned" : "cases" } : {};
  const table = element("mtable", rows.map((row) => element("mtr", row)), style);
  const [left, right] = MATRICES[kind];
  const fence = (mark) => (mark ? [operator(mark, { stretchy: "true", fence: "true" })] : []);
  return grouped([...fence(left), table, ...fence(right)]);
}

const nothing = () => null;
const stack = (tag) => (_formula, _name, { argument }) => {
  const mark = argument();
  return element(tag, [argument(), mark]);
};
const COMMANDS = {
  frac: fraction, dfrac: fraction, tfrac: fraction, cfrac: fraction, binom: fraction, dbinom: fraction,
  sqrt: root, left: fenced, begin: environment, overset: stack("mover"), underset: stack("munder"), stackrel: stack("mover"),
  big: sized, Big: sized, bigg: sized, Bigg: sized, bigl: sized, bigr: sized, Bigl: sized, Bigr: sized, biggl: sized, biggr: sized,
  displaystyle: nothing, textstyle: nothing, scriptstyle: nothing, nonumber: nothing, notag: nothing, "!": nothing,
  boxed: (_formula, _name, { argument }) => element("mrow", [argument()], { class: "boxed" }),
  operatorname: (_formula, _name, { text }) => leaf("mi", text(), { mathvariant: "normal" }),
  "operatorname*": (_formula, _name, { text }) => ({ ...leaf("mi", text(), { mathvariant: "normal" }), stacked: true }),
  tag: (_formula, _name, { text }) => leaf("mtext", `  (${text()})`),
  pmod: (_formula, _name, { argument }) => element("mrow", [leaf("mtext", "\u2003(mod "), argument(), leaf("mtext", ")")]),
  not: (_formula, _name, { argument }) => {
    const node = argument();
    if (node.text === undefined) throw new NotUnderstood();
    return { ...node, text: `${node.text}\u0338` };
  },
}; // prettier-ignore
