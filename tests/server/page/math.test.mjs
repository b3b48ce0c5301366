// LaTeX into MathML: what models write most, and nothing where not all of it is understood.

import assert from "node:assert/strict";
import { test } from "node:test";

import { parseMath } from "../../../src/bendi/server/page/math.js";

const TAGS = new Set("math mrow mi mn mo mtext mspace mfrac msqrt mroot msup msub msubsup mover munder munderover mtable mtr mtd".split(" "));
const ATTRIBUTES = new Set(["display", "mathvariant", "stretchy", "fence", "width", "accent", "linethickness", "class"]);

/** In short: `msup(x 2)`. */
const short = (node) => (node.children ? `${node.tag}(${node.children.map(short).join(" ")})` : node.text);

function check(node) {
  assert.ok(TAGS.has(node.tag), node.tag);
  for (const name of Object.keys(node.attributes)) assert.ok(ATTRIBUTES.has(name), name);
  assert.ok((node.children === undefined) !== (node.text === undefined));
  node.children?.forEach(check);
}

const CASES = [
  ["x^2", "math(msup(x 2))"],
  ["x^10", "math(mrow(msup(x 1) 0))"],
  ["x_{i+1}^2", "math(msubsup(x mrow(i + 1) 2))"],
  ["f'(x)", "math(mrow(msup(f ′) ( x )))"],
  ["\\frac12", "math(mfrac(1 2))"],
  ["\\frac{a+b}{c}", "math(mfrac(mrow(a + b) c))"],
  ["\\sqrt[3]{x}", "math(mroot(x 3))"],
  ["\\alpha \\le 3.14", "math(mrow(α ≤ 3.14))"],
  ["\\mathbb{R}^n", "math(msup(ℝ n))"],
  ["\\mathbf{v}", "math(𝐯)"],
  ["\\text{if } x", "math(mrow(if  x))"],
  ["\\left[ \\frac{1}{2} \\right)", "math(mrow([ mfrac(1 2) )))"],
  ["\\hat{y} \\cdot \\vec v", "math(mrow(mover(y ^) ⋅ mover(v →)))"],
  ["\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "math(mrow(( mtable(mtr(mtd(1) mtd(2)) mtr(mtd(3) mtd(4))) )))"],
  ["50\\%", "math(mrow(50 %))"],
  ["\\binom{n}{k}", "math(mrow(( mfrac(n k) )))"],
  ["\\not= 0", "math(mrow(≠ 0))".replace("≠", "=\u0338")],
  ["内存 = 带宽", "math(mrow(内 存 = 带 宽))"],
];

for (const [tex, expected] of CASES) {
  test(`math ${tex}`, () => {
    const tree = parseMath(tex);
    check(tree);
    assert.equal(short(tree), expected);
  });
}

test("sums have their limits above and below only on a line of their own", () => {
  assert.equal(short(parseMath("\\sum_{i}^n", true)), "math(munderover(∑ i n))");
  assert.equal(short(parseMath("\\sum_{i}^n", false)), "math(msubsup(∑ i n))");
  assert.equal(short(parseMath("\\int_0^1", true)), "math(msubsup(∫ 0 1))");
});

test("what is not understood is nothing, never half of it", () => {
  const unknown = ["\\unknown{x}", "{", "}", "a & b", "\\frac{1}", "x^", "\\left( x", "\\begin{evil} x \\end{evil}", "\\begin{matrix} x", "\\href{javascript:x}{y}", "\\constructor", "\\__proto__", "\\toString"];
  for (const tex of unknown) assert.equal(parseMath(tex), null, tex);
});

test("text in formulas stays text", () => {
  const tree = parseMath("\\text{<script>alert(1)</script>}");
  check(tree);
  assert.equal(short(tree), "math(<script>alert(1)</script>)");
});

test("depth and length are bounded", () => {
  for (const tex of ["{".repeat(5000), "\\sqrt".repeat(3000), "\\frac{".repeat(1000), "x^".repeat(4000), "\\left(".repeat(1000), "a".repeat(9000)]) {
    assert.equal(parseMath(tex), null);
  }
  assert.notEqual(parseMath("x_1+".repeat(1500) + "1"), null);
});

test("any text at all gives a tree or nothing", () => {
  const pieces = ["\\frac", "{", "}", "^", "_", "x", "1", "\\left", "\\right", "(", ")", "\\sqrt", "[", "]", "&", "\\\\", "\\begin{matrix}", "\\end{matrix}", "'", " ", "\\sum", "\\text"];
  let seed = 3;
  const next = (below) => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
  for (let round = 0; round < 4000; round++) {
    const tex = Array.from({ length: next(14) }, () => pieces[next(pieces.length)]).join("");
    const tree = parseMath(tex, round % 2 === 0);
    if (tree) check(tree);
  }
});
