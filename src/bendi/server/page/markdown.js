// Markdown into a tree of blocks. Text only: no HTML comes in, none goes out; `markdown_dom.js` makes nodes of it.
//
// Every block has `source`, the lines it was made of, so that a view can leave alone what has not changed while an
// answer grows. Works in time that grows with the length of the text, whatever a model writes.

import { parseInline } from "./markdown_inline.js";

const DEEPEST = 12;
const FENCE = /^( {0,3})(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])([ \t]+|$)(.*)$/;
const QUOTE = /^ {0,3}> ?/;
const TABLE_RULE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

/** The blocks of `text`. */
export function parseMarkdown(text) {
  return blocks(text.replace(/\r\n?/g, "\n").replace(/\0/g, "\uFFFD").split("\n"), 0);
}

function blocks(lines, depth) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (blank(lines[at])) {
      at++;
      continue;
    }
    const { block, next } = blockAt(lines, at, depth);
    block.source = lines.slice(at, next).join("\n");
    found.push(block);
    at = next;
  }
  return found;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return fenced(lines, at, fence);
  const math = mathAt(lines, at);
  if (math) return math;
  const heading = HEADING.exec(line);
  if (heading) {
    return { block: { type: "heading", level: heading[1].length, inline: parseInline(heading[2] ?? "") }, next: at + 1 };
  }
  if (RULE.test(line)) return { block: { type: "rule" }, next: at + 1 };
  if (depth < DEEPEST && QUOTE.test(line)) return quoted(lines, at, depth);
  if (depth < DEEPEST && ITEM.test(line)) return list(lines, at, depth);
  if (tableAt(lines, at)) return table(lines, at);
  if (/^(?: {4}|\t)/.test(line)) return indented(lines, at);
  return paragraph(lines, at, depth);
}

const blank = (line) => line.trim() === "";
const indentOf = (line) => /^[ \t]*/.exec(line)[0].replace(/\t/g, "    ").length;

/** `line` without up to `width` columns of white space. */
function dedented(line, width) {
  let gone = 0;
  let from = 0;
  while (gone < width && (line[from] === " " || line[from] === "\t")) gone += line[from++] === "\t" ? 4 : 1;
  return line.slice(from);
}

/** A code block; `open` while its end has not been written yet. */
function fenced(lines, at, fence) {
  const [, indent, mark, language] = fence;
  const body = [];
  for (let next = at + 1; next < lines.length; next++) {
    const end = lines[next].trim();
    if (end.length >= mark.length && end === mark[0].repeat(end.length) && indentOf(lines[next]) < 4) {
      return { block: { type: "code", language, text: body.join("\n"), open: false }, next: next + 1 };
    }
    body.push(dedented(lines[next], indent.length));
  }
  return { block: { type: "code", language, text: body.join("\n"), open: true }, next: lines.length };
}

function indented(lines, at) {
  const body = [];
  let next = at;
  while (next < lines.length && (blank(lines[next]) || indentOf(lines[next]) >= 4)) body.push(dedented(lines[next++], 4));
  while (body.length && blank(body.at(-1))) {
    body.pop();
    next--;
  }
  return { block: { type: "code", language: "", text: body.join("\n"), open: false }, next };
}

/** `$$ ... $$` or `\[ ... \]` that begins a line; null where its end is missing. */
function mathAt(lines, at) {
  const first = lines[at].trim();
  const [open, close] = first.startsWith("$$") ? ["$$", "$$"] : first.startsWith("\\[") ? ["\\[", "\\]"] : [];
  if (!open) return null;
  const body = [];
  for (let next = at; next < lines.length; next++) {
    const line = next === at ? first.slice(open.length) : lines[next];
    if (next > at && blank(line)) return null;
    const end = line.indexOf(close);
    if (end >= 0) {
      if (line.slice(end + close.length).replace(/[.,;]/, "").trim()) return null;
      body.push(line.slice(0, end));
      return { block: { type: "math", tex: body.join("\n").trim() }, next: next + 1 };
    }
    body.push(line);
  }
  return null;
}

function quoted(lines, at, depth) {
  const body = [];
  let next = at;
  while (next < lines.length && !blank(lines[next])) {
    if (!QUOTE.test(lines[next]) && interrupts(lines, next)) break;
    body.push(lines[next++].replace(QUOTE, ""));
  }
  return { block: { type: "quote", blocks: blocks(body, depth + 1) }, next };
}

/** Whether line `at` begins something else than the paragraph before it. */
function interrupts(lines, at) {
  const line = lines[at];
  const item = ITEM.exec(line);
  return (
    FENCE.test(line) ||
    HEADING.test(line) ||
    RULE.test(line) ||
    QUOTE.test(line) ||
    (item !== null && item[4] !== "" && (!/\d/.test(item[2]) || parseInt(item[2], 10) === 1)) ||
    /^ {0,3}(?:\$\$|\\\[)/.test(line) ||
    tableAt(lines, at)
  );
}

function paragraph(lines, at, depth) {
  let next = at + 1;
  while (next < lines.length && !blank(lines[next]) && (depth >= DEEPEST || !interrupts(lines, next))) next++;
  // The last line of a growing answer may be the underline of a heading; only `===` is taken, `---` is a rule.
  const text = lines.slice(at, next).map((line) => line.trimStart());
  if (text.length > 1 && /^=+[ \t]*$/.test(text.at(-1))) {
    return { block: { type: "heading", level: 1, inline: parseInline(text.slice(0, -1).join("\n")) }, next };
  }
  return { block: { type: "paragraph", inline: parseInline(text.join("\n").trimEnd()) }, next };
}

const markKind = (mark) => (/\d/.test(mark) ? mark.at(-1) : mark);

function list(lines, at, depth) {
  const first = ITEM.exec(lines[at]);
  const kind = markKind(first[2]);
  const items = [];
  let loose = false;
  let next = at;
  while (next < lines.length) {
    const mark = ITEM.exec(lines[next]);
    if (!mark || markKind(mark[2]) !== kind || RULE.test(lines[next])) break;
    const item = listItem(lines, next, mark);
    items.push(item.body);
    next = item.next;
    const gap = next < lines.length && blank(lines[next]);
    while (next < lines.length && blank(lines[next])) next++;
    const more = next < lines.length && ITEM.exec(lines[next]);
    const goesOn = more && markKind(more[2]) === kind;
    if (item.gap || (gap && goesOn)) loose = true;
    if (!goesOn) break;
  }
  const ordered = /\d/.test(first[2]);
  const block = { type: "list", ordered, start: ordered ? parseInt(first[2], 10) : 1, loose, items: [] };
  block.items = items.map((body) => itemOf(body, depth));
  return { block, next };
}

/** The lines of one item, without its mark. `gap`: it has an empty line between its blocks. */
function listItem(lines, at, mark) {
  const spaces = mark[3].replace(/\t/g, "    ").length;
  const width = mark[1].length + mark[2].length + (spaces > 4 || mark[4] === "" ? 1 : spaces);
  const body = [mark[4]];
  let next = at + 1;
  let gap = false;
  while (next < lines.length) {
    if (blank(lines[next])) {
      let after = next;
      while (after < lines.length && blank(lines[after])) after++;
      if (after >= lines.length || indentOf(lines[after]) < width) break;
      gap = true;
      while (next < after) {
        body.push("");
        next++;
      }
    } else if (indentOf(lines[next]) >= width || !interruptsItem(lines, next)) {
      body.push(dedented(lines[next], width));
      next++;
    } else {
      break;
    }
  }
  return { body, next, gap };
}

const interruptsItem = (lines, at) => ITEM.test(lines[at]) || interrupts(lines, at);

function itemOf(body, depth) {
  const task = /^\[([ xX])\][ \t]+/.exec(body[0]);
  if (task) body = [body[0].slice(task[0].length), ...body.slice(1)];
  return { task: task ? (task[1] === " " ? "open" : "done") : "", blocks: blocks(body, depth + 1) };
}

function tableAt(lines, at) {
  return (
    at + 1 < lines.length &&
    lines[at].includes("|") &&
    TABLE_RULE.test(lines[at + 1]) &&
    lines[at + 1].includes("-") &&
    cells(lines[at]).length === cells(lines[at + 1]).length
  );
}

function table(lines, at) {
  const align = cells(lines[at + 1]).map((cell) => {
    const left = cell.startsWith(":");
    const right = cell.endsWith(":");
    return left && right ? "center" : right ? "right" : "";
  });
  const row = (line) => cells(line).slice(0, align.length).map((cell) => parseInline(cell, { breaks: true }));
  const block = { type: "table", align, head: row(lines[at]), rows: [] };
  let next = at + 2;
  while (next < lines.length && !blank(lines[next]) && lines[next].includes("|")) block.rows.push(row(lines[next++]));
  for (const cellsOfRow of block.rows) while (cellsOfRow.length < align.length) cellsOfRow.push([]);
  return { block, next };
}

/** The cells of a line of a table; `\|` and a bar within `code` do not part them. */
function cells(line) {
  let text = line.trim();
  if (text.startsWith("|")) text = text.slice(1);
  const found = [];
  let cell = "";
  let code = "";
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === "\\" && text[at + 1] === "|") {
      cell += "|";
      at++;
    } else if (char === "`") {
      const run = /^`+/.exec(text.slice(at, at + 32))[0];
      if (!code && text.indexOf(run, at + run.length) >= 0) code = run;
      else if (code === run) code = "";
      cell += run;
      at += run.length - 1;
    } else if (char === "|" && !code) {
      found.push(cell.trim());
      cell = "";
    } else {
      cell += char;
    }
  }
  if (cell.trim() || !text.endsWith("|")) found.push(cell.trim());
  return found;
}
