// Server-sent events, cut anywhere.

import assert from "node:assert/strict";
import { test } from "node:test";

import { EventParser, events } from "../../../src/bendi/server/page/sse.js";

const STREAM =
  "\uFEFF: a comment\nevent: delta\ndata: {\"text\": \"héllo 本地\"}\n\n" +
  "data: one\ndata: two\nid: 7\nretry: 10\n\r\ndata\r\rdata:  spaced \nunknown: x\nevent\n\nevent: lost\n\n" +
  "event: done\ndata: {}\n\n";
const EXPECTED = [
  { event: "delta", data: '{"text": "héllo 本地"}' },
  { event: "message", data: "one\ntwo" },
  { event: "message", data: "" },
  { event: "message", data: " spaced " },
  { event: "done", data: "{}" },
];

test("events, whole", () => assert.deepEqual(new EventParser().push(STREAM), EXPECTED));

test("events, cut in two at every place", () => {
  for (let at = 0; at <= STREAM.length; at++) {
    const parser = new EventParser();
    assert.deepEqual([...parser.push(STREAM.slice(0, at)), ...parser.push(STREAM.slice(at))], EXPECTED, `cut at ${at}`);
  }
});

test("an event without its empty line has not come yet", () => {
  assert.deepEqual(new EventParser().push("event: delta\ndata: x\n"), []);
});

async function read(pieces) {
  const body = new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece);
      controller.close();
    },
  });
  const found = [];
  for await (const event of events(body)) found.push(event);
  return found;
}

test("bytes, one by one: characters of several bytes stay whole", async () => {
  const bytes = new TextEncoder().encode(STREAM);
  assert.deepEqual(await read(Array.from(bytes, (byte) => Uint8Array.of(byte))), EXPECTED);
});

test("the last event counts without its empty line when the stream ends properly", async () => {
  assert.deepEqual(await read([new TextEncoder().encode("event: done\ndata: {}")]), [{ event: "done", data: "{}" }]);
});

test("who stops reading closes the stream", async () => {
  let cancelled = false;
  const body = new ReadableStream({
    pull: (controller) => controller.enqueue(new TextEncoder().encode("data: x\n\n")),
    cancel: () => { cancelled = true; },
  }); // prettier-ignore
  for await (const event of events(body)) {
    assert.equal(event.data, "x");
    break;
  }
  assert.ok(cancelled);
});
