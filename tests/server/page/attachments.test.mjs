// Files in a question: whole in, whole out, whatever is in them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { estimateTokens, partsOf, readTextFile, withFiles } from "../../../src/bendi/server/page/attachments.js";

const file = (name, bytes) => new File([bytes], name);

test("there and back", () => {
  const cases = ["", "one line", "ends with a line\n", "```js\nlet a;\n```\n", "`````\n```", "\n\n[file: other.txt]\n```\nx\n```", "本地\n\n\n"];
  for (const text of cases) {
    for (const more of cases) {
      const sent = withFiles("What is it?", [{ name: "a.txt", text }, { name: "b ].md", text: more }]);
      const back = partsOf(sent);
      assert.equal(back.text, "What is it?");
      const whole = (content) => (content.endsWith("\n") ? content : `${content}\n`);
      assert.deepEqual(back.files, [{ name: "a.txt", text: whole(text) }, { name: "b ].md", text: whole(more) }]);
    }
  }
});

test("a question without files is left alone, also one that looks like it has some", () => {
  for (const text of ["", "hello", "see [file: x]\n```\n", "a\n\n[file: x]\n```\nnever closed", "a\n\n[file: x]\n```\nb\n```\nand more"]) {
    assert.deepEqual(partsOf(text), { text, files: [] });
  }
});

test("encodings", async () => {
  const text = "本地 é\r\nb";
  const utf16 = Uint8Array.from([0xff, 0xfe, ...Buffer.from(text, "utf16le")]);
  assert.equal((await readTextFile(file("a", new TextEncoder().encode(text)))).text, "本地 é\nb");
  assert.equal((await readTextFile(file("a", utf16))).text, "本地 é\nb");
  assert.equal((await readTextFile(file("a", Uint8Array.of(0xb1, 0xbe, 0xb5, 0xd8)))).text, "本地");
});

test("what is no text, or too much, is refused, not cut", async () => {
  assert.equal((await readTextFile(file("a.png", Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0, 0, 0)))).problem, "fileNotText");
  assert.equal((await readTextFile(file("a", new Uint8Array(5 * 1024 * 1024)))).problem, "fileTooLarge");
});

test("names cannot break out of their line", async () => {
  const read = await readTextFile(file("a]\n```\nx", "text"));
  assert.ok(!/[\n\]]/.test(read.name));
});

test("estimates are on the safe side", () => {
  assert.equal(estimateTokens(""), 1);
  assert.equal(estimateTokens("abcdef"), 3);
  assert.equal(estimateTokens("本地"), 3);
});
