// Markdown into trees: what people expect of it, what attackers try, and what it may cost.

import assert from "node:assert/strict";
import { test } from "node:test";

import { parseMarkdown } from "../../../src/bendi/server/page/markdown.js";
import { parseInline, plainText, safeAddress } from "../../../src/bendi/server/page/markdown_inline.js";

/** A tree in short: `p(a strong(b))`. */
function short(node) {
  if (Array.isArray(node)) return node.map(short).join("");
  switch (node.type) {
    case "text": return node.text;
    case "paragraph": return `p(${short(node.inline)})`;
    case "heading": return `h${node.level}(${short(node.inline)})`;
    case "list": return `${node.ordered ? `ol${node.start}` : "ul"}${node.loose ? "+" : ""}(${node.items.map((item) => `${item.task && `${item.task}:`}[${short(item.blocks)}]`).join("")})`;
    case "quote": return `quote(${short(node.blocks)})`;
    case "table": return `table(${[node.head, ...node.rows].map((row) => row.map(short).join("|")).join("/")})`;
    case "code": return node.language === undefined ? `code(${node.text})` : `pre${node.open ? "…" : ""}:${node.language}(${node.text})`;
    case "math": return `math(${node.tex ?? node.text})`;
    case "link": return `a<${node.href}>(${short(node.children)})`;
    case "image": return `img<${node.href}>(${node.text})`;
    case "rule": return "hr";
    case "break": return "⏎";
    default: return `${node.type}(${short(node.children)})`;
  }
} // prettier-ignore

const CASES = [
  ["plain", "p(plain)"],
  ["a\nb", "p(a\nb)"],
  ["a  \nb\\\nc", "p(a⏎b⏎c)"],
  ["# One\n## Two ##\n####### no", "h1(One)h2(Two)p(####### no)"],
  ["**b** *i* ***both*** ~~gone~~ _u_", "p(strong(b) em(i) em(strong(both)) del(gone) em(u))"],
  ["snake_case_name and 2*3*4", "p(snake_case_name and 2em(3)4)"],
  ["**“重点”**后面，这是**粗体**字", "p(strong(“重点”)后面，这是strong(粗体)字)"],
  ["**open", "p(**open)"],
  ["* not emphasis * here", "ul([not emphasis * here])".replace("not emphasis * here", "p(not emphasis * here)")],
  ["`a` ``b ` c`` `open", "p(code(a) code(b ` c) `open)"],
  ["\\*x\\* &lt;b&gt; &amp;copy; &#x672c;", "p(*x* <b> &copy; 本)"],
  ["- a\n- b\n  - c\n- [x] d\n- [ ] e", "ul([p(a)][p(b)ul([p(c)])]done:[p(d)]open:[p(e)])"],
  ["3. a\n4. b", "ol3([p(a)][p(b)])"],
  ["1. a\n\n   more\n2. b", "ol1+([p(a)p(more)][p(b)])"],
  ["- a\n\ntext", "ul([p(a)])p(text)"],
  ["text\n- a", "p(text)ul([p(a)])"],
  ["text\n1986. A year", "p(text\n1986. A year)"],
  ["- ```py\n  x\n  ```\n- b", "ul([pre:py(x)][p(b)])"],
  ["> a\nb\n> > c", "quote(p(a\nb)quote(p(c)))"],
  ["---\n***", "hrhr"],
  ["```js\nlet a;\n\n```\nafter", "pre:js(let a;\n)p(after)"],
  ["```\nopen", "pre…:(open)"],
  ["````\n```\n````", "pre:(```)"],
  ["~~~ python title\nx\n~~~", "pre:python(x)"],
  ["    indented\n\n    more\n\nend", "pre:(indented\n\nmore)p(end)"],
  ["|a|b|\n|-|-:|\n|1|`x|y`|\n|2|", "table(a|b/1|code(x|y)/2|)"],
  ["a|b\n-|-\n1\\|2|3", "table(a|b/1|2|3)"],
  ["a|b\nno table", "p(a|b\nno table)"],
  ["x<br>y", "p(x<br>y)"],
  ["|a|\n|-|\n|x<br>y<b>|", "table(a/x⏎y<b>)"],
  ["[t](https://a.b/c_(d) \"title\")", "p(a<https://a.b/c_(d)>(t))"],
  ["[**t** `c`](<https://a.b>)", "p(a<https://a.b>(strong(t) code(c)))"],
  ["see https://a.b/c?d=e. (https://x.y) 见https://z.cn/a，好", "p(see a<https://a.b/c?d=e>(https://a.b/c?d=e). (a<https://x.y>(https://x.y)) 见a<https://z.cn/a>(https://z.cn/a)，好)"],
  ["<https://a.b>", "p(a<https://a.b>(https://a.b))"],
  ["[a [b](https://in.ner) c](https://out.er)", "p(a<https://out.er>(a b c))"],
  ["![alt](https://a.b/c.png)", "p(img<https://a.b/c.png>(alt))"],
  ["$x^2$ costs $5 and $6", "p(math(x^2) costs $5 and $6)"],
  ["\\(a\\) and \\[b\\]", "p(math(a) and math(b))"],
  ["$$\na\n$$\nafter", "math(a)p(after)"],
  ["\\[\nx\n\\]", "math(x)"],
  ["$$ open\n\nafter", "p($$ open)p(after)"],
]; // prettier-ignore

for (const [text, expected] of CASES) {
  test(`markdown ${JSON.stringify(text)}`, () => assert.equal(short(parseMarkdown(text)), expected));
}

test("HTML is text", () => {
  for (const html of ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<a href='javascript:alert(1)'>x</a>", "<!-- x -->"]) {
    assert.equal(plainText(parseInline(html)), html);
  }
});

test("only addresses of the web become links", () => {
  const bad = [
    "javascript:alert(1)", "JaVaScRiPt:alert(1)", " javascript:alert(1)", "java\tscript:alert(1)", "data:text/html,<script>1</script>",
    "vbscript:x", "file:///etc/passwd", "//evil.example", "/api/bendi/sessions", "#/s/x", "blob:http://x/y", "https://a\u0000b", "https://a b",
    "&#106;avascript:alert(1)", "http\n://x",
  ]; // prettier-ignore
  for (const address of bad) assert.equal(safeAddress(address), "", address);
  for (const address of bad) {
    for (const text of [`[x](${address})`, `[x](<${address}>)`, `![x](${address})`, `<${address}>`]) {
      const nodes = parseMarkdown(text).flatMap((block) => block.inline ?? []);
      const hrefs = nodes.filter((node) => node.type === "link" || node.type === "image").map((node) => node.href);
      assert.ok(hrefs.every((href) => href === "" || href.startsWith("http")), `${text}: ${hrefs}`);
    }
  }
  assert.equal(safeAddress("HTTPS://a.b/c"), "HTTPS://a.b/c");
  assert.equal(safeAddress("mailto:a@b.c"), "mailto:a@b.c");
});

test("what a link hides is seen when its address is refused", () => {
  assert.equal(plainText(parseInline("[click](javascript:alert(1))")), "click (javascript:alert(1))");
});

test("no word is lost: the visible text of a growing answer is in what came", () => {
  const text = "# T\n\nA **b** `c` [d](https://e.f)\n\n- g\n  1. h\n\n| i | j |\n|---|---|\n| k | l |\n\n```x\nm\n```\n";
  for (let end = 0; end <= text.length; end++) {
    const seen = short(parseMarkdown(text.slice(0, end)));
    for (const word of text.slice(0, end).match(/\b[a-m]\b/g) ?? []) assert.ok(seen.includes(word), `${end}: ${word}`);
  }
});

test("blocks know their source, so that finished ones need not be drawn again", () => {
  const text = "one\n\n- two\n- three\n\n```\nfour\n```\n\nfive";
  const before = parseMarkdown(text.slice(0, -2)).map((block) => block.source);
  const after = parseMarkdown(text).map((block) => block.source);
  assert.deepEqual(before.slice(0, -1), after.slice(0, -1));
});

const HOSTILE = {
  brackets: (n) => "[".repeat(n), "link openings": (n) => "[a](".repeat(n), "closed links": (n) => "[".repeat(n) + "](x)".repeat(n),
  stars: (n) => "*a ".repeat(n), "closing stars": (n) => "a**".repeat(n), mixed: (n) => "*a _b ".repeat(n) + "c_ d* ".repeat(n),
  quotes: (n) => ">".repeat(n), "nested lists": (n) => "- ".repeat(n), numbers: (n) => "1. ".repeat(n), rules: (n) => "- - ".repeat(n) + "a",
  "back quotes": (n) => Array.from({ length: Math.sqrt(2 * n) }, (_, at) => "`".repeat(at) + "a").join(""),
  dollars: (n) => "$a ".repeat(n), "math lines": (n) => "$$a\n".repeat(n), tables: (n) => "|a\n|-\n".repeat(n), cells: (n) => "|".repeat(n) + "\n" + "|-".repeat(n),
  "code in cells": (n) => "`|".repeat(n) + "\n|-|", addresses: (n) => "http".repeat(n), entities: (n) => "&".repeat(n), hashes: (n) => `# ${"#".repeat(n)} ${" #".repeat(n)}a`,
  spaces: (n) => `a${" ".repeat(n)}b`, lines: (n) => "a\n".repeat(n), angles: (n) => "<".repeat(n), exclamations: (n) => "![".repeat(n), parentheses: (n) => `[a](${"(".repeat(n)}`,
}; // prettier-ignore

for (const [name, make] of Object.entries(HOSTILE)) {
  test(`hostile text costs no more than its length: ${name}`, () => {
    parseMarkdown(make(1000));
    const begun = process.cpuUsage();
    parseMarkdown(make(20_000));
    const spent = process.cpuUsage(begun);
    // 60 ms at most here; what grows with the square of the length takes many seconds.
    assert.ok((spent.user + spent.system) / 1000 < 3000);
  });
}

test("any text at all gives a tree", () => {
  const alphabet = "ab *_`~[]()!<>|#-+1.\n\n\\$&:hH/\t本“”";
  let seed = 7;
  const next = (below) => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
  for (let round = 0; round < 3000; round++) {
    const text = Array.from({ length: next(60) }, () => alphabet[next(alphabet.length)]).join("");
    assert.doesNotThrow(() => short(parseMarkdown(text)), text);
  }
});
