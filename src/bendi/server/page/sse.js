// Server-sent events from a byte stream, split anywhere. No browser API: tested with node.

/** Gathers text and gives back whole events: `{event, data}`, `event` is "message" where the server named none. */
export class EventParser {
  #rest = "";
  #data = [];
  #event = "";
  #started = false;

  /** The events that `text` completes. Lines may end with LF, CR or CRLF, also cut in two between calls. */
  push(text) {
    this.#rest += text;
    if (!this.#started && this.#rest) {
      this.#started = true;
      if (this.#rest[0] === "\uFEFF") this.#rest = this.#rest.slice(1);
    }
    const events = [];
    let from = 0;
    for (;;) {
      const end = lineEnd(this.#rest, from);
      if (!end) break;
      const event = this.#line(this.#rest.slice(from, end.at));
      if (event) events.push(event);
      from = end.next;
    }
    this.#rest = this.#rest.slice(from);
    return events;
  }

  #line(line) {
    if (line === "") {
      const event = this.#data.length ? { event: this.#event || "message", data: this.#data.join("\n") } : null;
      this.#data = [];
      this.#event = "";
      return event;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return null;
    const name = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value[0] === " ") value = value.slice(1);
    if (name === "data") this.#data.push(value);
    if (name === "event") this.#event = value;
    return null;
  }
}

/** Where the line that begins at `from` ends, and where the next begins; null while its end has not come. */
function lineEnd(text, from) {
  for (let at = from; at < text.length; at++) {
    if (text[at] === "\n") return { at, next: at + 1 };
    if (text[at] === "\r") {
      // A CR at the very end may be the first half of CRLF.
      if (at + 1 === text.length) return null;
      return { at, next: text[at + 1] === "\n" ? at + 2 : at + 1 };
    }
  }
  return null;
}

/** Reads the body of a fetch response; yields `{event, data}`. Closing the generator closes the connection. */
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
    yield* parser.push(decoder.decode() + "\n\n");
  } finally {
    await reader.cancel().catch(() => {});
  }
}
