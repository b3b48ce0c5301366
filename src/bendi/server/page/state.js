// What the page knows, and who wants to hear when it changes.

export const state = {
  sessions: [], // as the server lists them, last used first
  search: "",
  session: null, // the open conversation, null for a new one
  messages: [], // of the open conversation, those in force
  answer: null, // the answer that is being written: see `chat.js`
  failure: null, // the error to show under the messages: an ApiFailure with `question`, what was asked
  refused: null, // a question that was not taken, on its way back to where it was written
  models: null, // those that are here; null until the server has said it
  personas: [],
  model: "", // what a new conversation will use
  persona: "",
  loaded: null, // which models are loaded, as the server said last
  memoryBytes: 0, // of this machine and its GPUs; 0 until the server has said it
  context: null, // {used_tok, available_tok, left_out} after the last answer
  rates: [], // {pp, tg, ttft} of the last answers
};

const listeners = new Map();

/** Calls `listener` after `tell(topic)`. Topics: "sessions", "session", "messages", "answer", "models", "loaded", ... */
export function on(topic, listener) {
  const known = listeners.get(topic) ?? [];
  listeners.set(topic, [...known, listener]);
}

/** Says that something of `topic` has changed. */
export function tell(...topics) {
  for (const topic of topics) for (const listener of listeners.get(topic) ?? []) listener();
}
