// Every call to the server, in one place: nothing else of the page knows an address or a field's name of a request.

import { t } from "./language.js";
import { events } from "./sse.js";

const KEY = "bendi.key";

/** An error as the server words it. `status` 0: there was no answer. `extra`: further fields, as `context_needed`. */
export class ApiFailure extends Error {
  constructor(status, message, code = "", extra = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.extra = extra;
  }
}

/** The key is forgotten when the tab is closed. */
export function useKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;

let keyWanted = async () => false;

/** `ask` is called when the server wants another key; it answers true once there is one to try. */
export function onKeyWanted(ask) {
  keyWanted = ask;
}

async function request(method, path, { body, signal, accept = "application/json" } = {}) {
  for (;;) {
    const headers = { Accept: accept };
    const key = sessionStorage.getItem(KEY);
    if (key) headers.Authorization = `Bearer ${key}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(path, {
        method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body),
        cache: "no-store", credentials: "omit", redirect: "error",
      }); // prettier-ignore
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiFailure(0, t("noAnswer"), "unreachable");
    }
    if (response.ok) return response;
    const failure = await failureOf(response);
    if (response.status !== 401 || !(await keyWanted(failure))) throw failure;
  }
}

async function failureOf(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // Not ours: a proxy's page, or nothing.
  }
  return failureFrom(body, response.status);
}

function failureFrom(body, status = 500) {
  const error = body?.error && typeof body.error === "object" ? body.error : { message: body?.error };
  const { message, code, ...extra } = error;
  return new ApiFailure(status, typeof message === "string" && message ? message : t("failed", { status }), code ?? "", extra);
}

const json = async (method, path, options) => (await request(method, path, options)).json();
const part = encodeURIComponent;

/** Events of a stream; an `error` event is thrown. A stream that ends without its last event was cut off. */
async function* stream(path, body, signal, accept = "text/event-stream") {
  const response = await request("POST", path, { body, signal, accept });
  let last = "";
  try {
    for await (const { event, data } of events(response.body)) {
      last = event;
      const value = JSON.parse(data);
      if (event === "error") throw failureFrom(value);
      yield { event, value };
    }
  } catch (error) {
    if (error instanceof ApiFailure || error.name === "AbortError") throw error;
    throw new ApiFailure(0, t("cutOff"), "cut_off");
  }
  if (last !== "done") throw new ApiFailure(0, t("cutOff"), "cut_off");
}

export const machine = () => json("GET", "/api/bendi/machine");
export const models = () => json("GET", "/api/bendi/models");
export const personas = () => json("GET", "/api/bendi/personas");
export const loaded = () => json("GET", "/api/bendi/ps");
export const stopModel = (model) => json("POST", "/api/bendi/stop", { body: { model } });
export const pinModel = (model, pinned) => json("POST", "/api/bendi/pin", { body: { model, pinned } });

/** Models of the catalogue that suit this machine, best first. `use`: chat, code, rag or summarise. */
export const fit = (use, all, signal) => json("GET", `/api/bendi/fit?use=${part(use)}${all ? "&all=true" : ""}`, { signal });

export const pull = (model, signal) => stream("/api/bendi/pull", { model }, signal);
export const removeModel = (name) => json("DELETE", `/api/bendi/models/${part(name)}`);

export const sessions = () => json("GET", "/api/bendi/sessions?limit=500");
export const searchSessions = (words, signal) => json("GET", `/api/bendi/sessions?search=${part(words)}`, { signal });
export const session = (id) => json("GET", `/api/bendi/sessions/${part(id)}`);
export const createSession = (fields) => json("POST", "/api/bendi/sessions", { body: fields });
export const changeSession = (id, fields) => json("PATCH", `/api/bendi/sessions/${part(id)}`, { body: fields });
export const deleteSession = (id) => json("DELETE", `/api/bendi/sessions/${part(id)}`);
export const branchSession = (id, position) =>
  json("POST", `/api/bendi/sessions/${part(id)}/branch`, { body: { before_position: position } });
export const exportSession = async (id) =>
  (await request("GET", `/api/bendi/sessions/${part(id)}/export`, { accept: "text/markdown" })).text();

/** An image that a message shows, as a Blob. */
export const image = async (id, name) =>
  (await request("GET", `/api/bendi/sessions/${part(id)}/images/${part(name)}`, { accept: "image/*" })).blob();

/** `question`: {text, images} or {retry: true}, with `from_position` and `policy` where wanted. */
export const ask = (id, question, signal) => stream(`/api/bendi/sessions/${part(id)}/messages`, question, signal);

/** How many tokens `text` is for `model`. Loads it if need be. */
export async function countTokens(model, text, signal) {
  const body = { model, messages: [{ role: "user", content: text }] };
  return (await json("POST", "/v1/messages/count_tokens", { body, signal })).input_tokens;
}
