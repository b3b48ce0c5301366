// Colours for code: comments, strings, numbers and words that most languages share. A guess, never wrong about the text.

import { el } from "./dom.js";

const WORDS = new Set(
  (
    "abstract and as assert async await begin bool boolean break case catch char class const continue def default del " +
    "delete do done double elif else elseif end enum esac except export extends extern false False fi final finally " +
    "float fn for foreach from func function global go goto if impl implements import in include inline int interface " +
    "is lambda let local long loop match mod module mut namespace new nil None nonlocal not null or package pass " +
    "private protected pub public raise range return self Self short signed sizeof static struct super switch template " +
    "then this throw trait true True try type typedef typeof undefined union unsigned until use using var virtual void " +
    "where while with yield " +
    "SELECT FROM WHERE INSERT INTO UPDATE DELETE CREATE TABLE JOIN LEFT ON GROUP BY ORDER LIMIT VALUES SET AND OR NOT NULL AS"
  ).split(" "),
);
const HASH_COMMENTS = /^(?:py|python|sh|bash|zsh|shell|console|toml|ya?ml|rb|ruby|r|perl|makefile|dockerfile|ini|conf|cmake|nix|jl|julia)$/i;
const DASH_COMMENTS = /^(?:sql|lua|haskell|hs|elm|ada)$/i;
const PLAIN = /^(?:text|txt|plain|plaintext|markdown|md|log|output|diff|csv)$/i;
const LONGEST = 50_000;

const token = (comment) =>
  new RegExp(
    `(${comment})|("""[\\s\\S]*?"""|'''[\\s\\S]*?'''|"(?:[^"\\\\\\n]|\\\\.)*"|'(?:[^'\\\\\\n]|\\\\.)*'|\`(?:[^\`\\\\]|\\\\.)*\`)` +
      "|\\b(0[xX][0-9a-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)\\b|([A-Za-z_]\\w*)(?=(\\s{0,4}\\())?",
    "g",
  );
const SLASHES = token("\\/\\/[^\\n]*|\\/\\*[\\s\\S]*?\\*\\/");
const HASHES = token("#[^\\n]*");
const DASHES = token("--[^\\n]*");

/** The nodes of `text`; plain where it is very long or not code. */
export function colouredCode(text, language) {
  if (PLAIN.test(language) || text.length > LONGEST || !language) return [text];
  const pattern = HASH_COMMENTS.test(language) ? HASHES : DASH_COMMENTS.test(language) ? DASHES : SLASHES;
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(pattern)) {
    const [whole, comment, string, number, word, call] = found;
    const kind = comment ? "comment" : string ? "string" : number ? "number" : WORDS.has(word) ? "word" : call ? "call" : "";
    if (!kind) continue;
    nodes.push(text.slice(from, found.index), el("span", { class: kind }, whole));
    from = found.index + whole.length;
  }
  nodes.push(text.slice(from));
  return nodes;
}
