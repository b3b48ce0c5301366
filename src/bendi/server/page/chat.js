// What is done with conversations: open, ask, stop, edit, branch. Views only show `state`, and call these.

import * as api from "./api.js";
import { t } from "./language.js";
import { remember } from "./preferences.js";
import { state, tell } from "./state.js";

/** Answers that are being written, by session; each goes on when another conversation is looked at. */
const answers = new Map();
const LONGEST_HISTORY = 60;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

function follow() {
  state.answer = state.session ? (answers.get(state.session.id) ?? null) : null;
}

export const answering = (sessionId) => answers.has(sessionId);

export async function refreshSessions() {
  const words = state.search.trim();
  const sessions = words ? await api.searchSessions(words) : await api.sessions();
  if (words !== state.search.trim()) return;
  // One conversation may be found by several of its messages.
  state.sessions = [...new Map(sessions.toReversed().map((session) => [session.id, session])).values()].toReversed();
  tell("sessions");
}

export function newChat() {
  Object.assign(state, { session: null, messages: [], failure: null, context: null });
  follow();
  setAddress("#/");
  tell("session", "messages", "answer");
}

/** Opens a conversation. Raises ApiFailure; then what was open stays open. */
export async function openSession(id) {
  const session = await api.session(id);
  const same = state.session?.id === session.id;
  Object.assign(state, { session, failure: same ? state.failure : null });
  showMessages(session.messages);
  setAddress(`#/s/${session.id}`);
  tell("session", "messages", "answer");
}

function showMessages(messages) {
  follow();
  const kept = messages.filter((message) => !message.superseded);
  // What is stored of an answer that is still being written is shown by the answer itself.
  const last = state.answer?.position ?? Infinity;
  state.messages = kept.filter((message) => message.position <= last);
  state.context = state.answer ? state.context : contextOf(kept);
}

/** How full the context was after the last stored answer; `available_tok` null where that is not known. */
function contextOf(messages) {
  const usage = messages.findLast((message) => message.role === "assistant" && message.details?.usage)?.details.usage;
  if (!usage) return null;
  return { used_tok: usage.prompt_tok + usage.completion_tok, available_tok: state.context?.available_tok ?? null, left_out: 0 };
}

function setAddress(hash) {
  if (location.hash !== hash) history.pushState(null, "", hash);
}

/** Asks. `images`: `data:` URIs. `fromPosition`: every message from that one on is taken back first. `policy`: for a context that is full. */
export async function ask(text, { images = [], fromPosition, policy } = {}) {
  const question = images.length ? { text, images } : { text };
  if (fromPosition !== undefined) question.from_position = fromPosition;
  if (state.session || (await begin(question))) await converse(question, policy);
}

let beginning = false;

/** Makes a conversation for a first question; false when that failed, and the question goes back. */
async function begin(question) {
  if (beginning) return false;
  beginning = true;
  state.failure = null;
  try {
    const fields = { model: state.model, ...(state.persona ? { persona: state.persona } : {}) };
    state.session = await api.createSession(fields);
  } catch (error) {
    if (!(error instanceof api.ApiFailure)) throw error;
    state.failure = Object.assign(error, { question });
    giveBack(question);
    tell("messages");
    return false;
  } finally {
    beginning = false;
  }
  setAddress(`#/s/${state.session.id}`);
  tell("session");
  return true;
}

/** A question that was not taken goes back to where it was written. */
function giveBack(question) {
  state.refused = question;
  tell("refused");
}

/** Another answer to the last question. */
export async function retry(policy) {
  await converse({ retry: true }, policy);
}

async function converse(question, policy) {
  const id = state.session.id;
  if (answers.has(id)) return;
  const before = state.messages;
  const answer = {
    sessionId: id, text: "", reasoning: "", phase: "waiting", progress: null, note: null, position: Infinity,
    began: performance.now(), thoughtS: null, controller: new AbortController(),
  }; // prettier-ignore
  answers.set(id, answer);
  state.failure = null;
  showQuestion(question);
  follow();
  tell("messages", "answer", "sessions");
  try {
    const wanted = policy ? { ...question, policy } : question;
    for await (const { event, value } of api.ask(id, wanted, answer.controller.signal)) take(answer, event, value);
    answers.delete(id);
  } catch (error) {
    answers.delete(id);
    await ended(answer, error, { question, before });
  }
  if (state.session?.id === id) follow();
  tell("answer", "messages");
  await refreshSessions().catch(() => {});
  await refreshTitle(id).catch(() => {});
}

/** The question is seen at once; it takes its place when the server has stored it. */
function showQuestion(question) {
  const from = question.from_position ?? Infinity;
  state.messages = state.messages.filter((message) => message.position < from);
  if (question.retry) {
    const asked = state.messages.findLastIndex((message) => message.role === "user");
    state.messages = state.messages.filter((message, at) => at <= asked || message.kind === "summary");
  } else {
    const images = question.images?.map((source) => ({ source }));
    state.messages = [...state.messages, { role: "user", content: question.text, images, kind: "turn", state: "complete", waiting: true }];
  }
}

function take(answer, event, value) {
  const shown = state.session?.id === answer.sessionId;
  if (event === "question") {
    answer.position = value.position;
    if (shown) {
      state.messages = state.messages.map((message) => (message.waiting ? value : message));
      tell("messages");
    }
    // A new conversation stands in the list from its first question on.
    refreshSessions().catch(() => {});
  } else if (event === "delta") {
    if (value.text && answer.reasoning && answer.thoughtS === null) {
      answer.thoughtS = (performance.now() - answer.began) / 1000;
    }
    answer.text += value.text ?? "";
    answer.reasoning += value.reasoning ?? "";
    answer.phase = answer.text ? "writing" : "thinking";
  } else if (event === "done") {
    finish(answer, value, shown);
  } else if (event === "context") {
    answer.note = value;
  } else {
    answer.phase = { loading: "loading", progress: "reading", compact: "compacting" }[event] ?? answer.phase;
    answer.progress = value;
  }
  if (shown) tell("growing");
}

function finish(answer, done, shown) {
  if (done.timings) {
    const { pp_tok_s: pp, tg_tok_s: tg, ttft_s: ttft } = done.timings;
    state.rates = [...state.rates, { pp, tg, ttft }].slice(-LONGEST_HISTORY);
    tell("rates");
  }
  if (!shown) return;
  state.context = done.context ?? state.context;
  if (done.message) state.messages = [...state.messages, { ...done.message, note: answer.note, thoughtS: answer.thoughtS }];
  state.failure = done.message?.content || done.message?.reasoning ? null : new api.ApiFailure(200, t("emptyAnswer"), "empty");
  tell("context");
}

/** After an error or a stop: what the server has is shown; a question that it has not taken goes back. */
async function ended(answer, error, { question, before }) {
  const stopped = error.name === "AbortError";
  if (!stopped && !(error instanceof api.ApiFailure)) throw error;
  if (state.session?.id !== answer.sessionId) return;
  const stored = answer.position !== Infinity || question.retry;
  if (!stopped) state.failure = Object.assign(error, { question });
  if (!stored && (!stopped || !(await settle(answer)))) {
    state.messages = before;
    giveBack(question);
    return;
  }
  if (answer.text || answer.reasoning) {
    const partial = { role: "assistant", content: answer.text, reasoning: answer.reasoning, kind: "turn", state: "partial", waiting: true };
    state.messages = [...state.messages, partial];
  }
  tell("messages");
  if (stored) await settle(answer);
}

/** Shows what the server has kept, a moment after the connection has closed; false when there is nothing of it. */
async function settle(answer) {
  const written = Boolean(answer.text || answer.reasoning);
  for (const wait of [150, 350, 800, 1500]) {
    await pause(wait);
    const session = await api.session(answer.sessionId).catch(() => null);
    if (state.session?.id !== answer.sessionId || answers.has(answer.sessionId)) return true;
    const last = session?.messages.findLast((message) => message.kind === "turn" && !message.superseded);
    if (last?.role === (written ? "assistant" : "user")) {
      state.session = session;
      showMessages(session.messages);
      return true;
    }
  }
  return false;
}

async function refreshTitle(id) {
  const session = state.session?.id === id ? await api.session(id) : null;
  if (!session || state.session?.id !== id) return;
  state.session = session;
  tell("session");
}

/** Stops the answer that is seen; what was written is kept. */
export function stop() {
  state.answer?.controller.abort();
}

/** A new conversation with the messages before `position`, opened. */
export async function branch(position) {
  const made = await api.branchSession(state.session.id, position);
  await openSession(made.id);
  await refreshSessions();
  return made;
}

export async function useModel(name) {
  if (state.session) {
    await api.changeSession(state.session.id, { model: name });
    state.session = { ...state.session, model: name };
  }
  state.model = name;
  remember("model", name);
  tell("session", "models");
}

/** `name` empty: none. */
export async function usePersona(name) {
  if (state.session) {
    const changed = await api.changeSession(state.session.id, { persona: name });
    state.session = { ...state.session, persona: changed.persona ?? "", settings: changed.settings };
  } else {
    state.persona = name;
  }
  tell("session");
}

/** For this conversation from now on. */
export async function keepPolicy(policy) {
  await api.changeSession(state.session.id, { parameters: { context_policy: policy } });
}

export async function rename(session, title) {
  await api.changeSession(session.id, { title });
  if (state.session?.id === session.id) state.session = { ...state.session, title };
  tell("session");
  await refreshSessions();
}

export async function remove(session) {
  answers.get(session.id)?.controller.abort();
  await api.deleteSession(session.id);
  if (state.session?.id === session.id) newChat();
  await refreshSessions();
}
