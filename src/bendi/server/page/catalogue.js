// What the server has: models, what is loaded, personas; and downloads, which go on while other things are looked at.

import * as api from "./api.js";
import { preference } from "./preferences.js";
import { state, tell } from "./state.js";

/** Downloads by model: {progress, notes, controller, failure}. */
export const pulls = new Map();

export async function refreshModels() {
  state.models = await api.models();
  const complete = state.models.filter((model) => model.complete).map((model) => model.name);
  if (!complete.includes(state.model)) {
    const last = preference("model", "");
    // The built-in model is the last choice: it knows about bendi and about nothing else.
    state.model = complete.includes(last) ? last : (complete.find((name) => name !== "demo") ?? complete[0] ?? "");
  }
  tell("models");
}

export async function refreshMachine() {
  const { memory, gpus } = (await api.machine()).machine;
  const ram = Math.min(memory.total_bytes, memory.limit_bytes ?? Infinity);
  state.memoryBytes = gpus.reduce((sum, gpu) => sum + (gpu.unified ? 0 : (gpu.memory_total_bytes ?? 0)), ram);
  tell("loaded");
}

export async function refreshPersonas() {
  state.personas = await api.personas();
  tell("session");
}

export async function refreshLoaded() {
  state.loaded = await api.loaded();
  tell("loaded");
}

export async function pull(model) {
  if (pulls.has(model) && !pulls.get(model).failure) return;
  const job = { progress: null, note: "", controller: new AbortController(), failure: null };
  pulls.set(model, job);
  tell("pulls");
  try {
    for await (const { event, value } of api.pull(model, job.controller.signal)) {
      if (event === "progress") job.progress = value;
      if (event === "note") job.note = value.text;
      tell("pulls");
    }
    pulls.delete(model);
    await refreshModels();
  } catch (error) {
    if (error.name === "AbortError") pulls.delete(model);
    else if (error instanceof api.ApiFailure) job.failure = error;
    else throw error;
  }
  tell("pulls");
}

/** What has arrived is kept; the next download goes on from there. */
export function cancelPull(model) {
  const job = pulls.get(model);
  pulls.delete(model);
  job?.controller.abort();
  tell("pulls");
}
