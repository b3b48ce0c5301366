// The window with models: those that are here, those that suit this machine, and any other by its name.

import * as api from "./api.js";
import { cancelPull, pull, pulls, refreshModels } from "./catalogue.js";
import * as chat from "./chat.js";
import { confirm, openDialog, shown, toast } from "./dialogs.js";
import { el, replace } from "./dom.js";
import { icon } from "./icons.js";
import { duration, number, rate, size, t, word } from "./language.js";
import { on, state } from "./state.js";

const USES = ["chat", "code", "rag", "summarise"];
let view = null;

export function start() {
  on("pulls", () => view?.drawPulls());
  on("models", () => view?.drawHere());
}

export async function openModels() {
  if (view) return;
  const opened = openDialog(
    t("models"),
    (close) => {
      view = new ModelsView(close);
      return view.nodes();
    },
    { wide: true, name: "models" },
  );
  shown(refreshModels);
  view.loadFit();
  await opened;
  view.leave();
  view = null;
}

class ModelsView {
  constructor(close) {
    this.close = close;
    this.use = "chat";
    this.all = false;
    this.here = el("div", { class: "cards" });
    this.rows = el("div", { class: "cards" });
    this.machine = el("p", { class: "machine" });
    this.running = el("div", { class: "pulls" });
    this.request = null;
  }

  leave() {
    this.request?.abort();
  }

  nodes() {
    this.drawHere();
    this.drawPulls();
    const uses = el("select", { "aria-label": t("useFor") }, USES.map((use) => el("option", { value: use }, word("use", use))));
    uses.addEventListener("change", () => {
      this.use = uses.value;
      this.loadFit();
    });
    return [
      this.running,
      el("section", {}, el("h3", {}, t("modelsHere")), this.here),
      el("section", {}, el("div", { class: "section-head" }, el("h3", {}, t("modelsFit")), uses), this.machine, this.rows),
      el("section", {}, el("h3", {}, t("modelsOther")), this.#byName()),
    ];
  }

  drawHere() {
    const none = el("p", { class: "none" }, t("noModels"));
    replace(this.here, state.models?.length ? state.models.map((model) => this.#hereNode(model)) : none);
  }

  #hereNode(model) {
    const current = (state.session?.model ?? state.model) === model.name;
    const facts = [model.quantization, size(model.size_bytes), word("origin", model.origin)];
    const use = el("button", { type: "button", class: current ? "chosen" : "main", disabled: current || !model.complete, onclick: () => this.#use(model.name) }, current ? [icon("check"), t("inUse")] : t("use"));
    const remove = model.owned && el("button", { type: "button", class: "quiet", "aria-label": t("removeModel", { name: model.name }), title: t("removeModel", { name: model.name }), onclick: () => this.#remove(model) }, icon("trash"));
    return el(
      "div",
      { class: "card row-card" },
      el("div", { class: "card-text" }, el("b", {}, model.name), el("small", {}, facts.filter(Boolean).join(" · ")), !model.complete && el("small", { class: "warning" }, t("incomplete"))),
      remove,
      use,
    );
  }

  async #use(name) {
    await shown(() => chat.useModel(name));
    this.close();
  }

  async #remove(model) {
    if (!(await confirm(t("removeHeading"), t("removeText", { name: model.name, size: size(model.size_bytes) }), t("delete"), { danger: true }))) return;
    await shown(async () => {
      const done = await api.removeModel(model.name);
      toast(t("removed", { size: size(done.freed_bytes ?? 0) }));
      await refreshModels();
    });
  }

  async loadFit() {
    this.request?.abort();
    const request = (this.request = new AbortController());
    replace(this.rows, el("p", { class: "none" }, el("span", { class: "pulse" }), t("fitting")));
    try {
      const found = await api.fit(this.use, this.all, request.signal);
      this.#drawFit(found);
    } catch (error) {
      if (error.name !== "AbortError") replace(this.rows, el("p", { class: "none warning" }, error.message));
    }
  }

  #drawFit({ machine, models }) {
    const { cpu, usable_cores: cores, usable_bytes: bytes, gpus, measured } = machine;
    const parts = [cpu, t("cores", { count: number(cores) }), t("memoryFree", { size: size(bytes) }), ...gpus];
    replace(this.machine, parts.join(" · "), measured ? null : el("span", { class: "warning" }, ` · ${t("notMeasured")}`));
    const shownRows = this.all ? models : models.slice(0, 8);
    const more = models.length > shownRows.length && el("button", { type: "button", class: "wide-button", onclick: () => {
      this.all = true;
      this.loadFit();
    } }, t("showAll", { count: number(models.length) })); // prettier-ignore
    replace(this.rows, shownRows.map((row, at) => this.#fitNode(row, at === 0 && !this.all)), more, !models.length && el("p", { class: "none" }, t("nothingFits")));
  }

  #fitNode(row, best) {
    const { plan } = row;
    const name = row.get?.replace(/^bendi pull /, "").split(" ")[0] ?? row.model;
    const speed = plan.speeds?.[0];
    const error = plan.error ? ` ±${Math.round(100 * plan.error)} %` : "";
    const figure = (label, value, title) => value && el("span", { class: "fact", title }, el("small", {}, label), value);
    const here = (state.models ?? []).some((model) => model.complete && (model.name === row.model || model.name === name));
    return el(
      "article",
      { class: best ? "card best" : "card" },
      el(
        "div",
        { class: "card-head" },
        el("div", { class: "card-text" }, el("b", {}, row.title), el("small", {}, [row.maker, row.released, row.licence].filter(Boolean).join(" · "))),
        best && el("span", { class: "badge" }, t("best")),
        plan.verdict !== "fits" && el("span", { class: "badge warn" }, word("verdict", plan.verdict)),
        this.#getButton(name, here, row),
      ),
      memoryBar(plan),
      el(
        "div",
        { class: "facts" },
        figure(t("quantization"), plan.quantization),
        figure(t("file"), size(plan.file_bytes)),
        figure("PP", speed && `${rate(speed.pp.tok_s)}`, t("ppText")),
        figure("TG", speed && `${rate(speed.tg.tok_s)} tok/s${error}`, t("tgText")),
        figure(t("context"), number(plan.settings.context_tok)),
        figure(t("thinkingWord"), row.thinking && word("thinking", row.thinking)),
      ),
      row.why?.length && el("details", {}, el("summary", {}, t("why")), el("ul", {}, row.why.map((reason) => el("li", {}, reason)))),
    );
  }

  #getButton(name, here, row) {
    if (here) return el("button", { type: "button", disabled: true, class: "chosen" }, icon("check"), t("isHere"));
    const label = t("getModel", { name: row.title, size: size(row.plan.file_bytes) });
    return el("button", { type: "button", class: "main", "aria-label": label, title: label, disabled: pulls.has(name), onclick: () => pull(name) }, icon("download"), t("get"));
  }

  #byName() {
    const field = el("input", { type: "text", placeholder: "hf:Qwen/Qwen3-0.6B-GGUF:Q8_0", "aria-label": t("modelName"), autocomplete: "off", spellcheck: "false", autocapitalize: "off", id: "pull-name" });
    const form = el("form", { class: "by-name" }, field, el("button", { type: "submit", class: "main" }, icon("download"), t("get")));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (field.value.trim()) pull(field.value.trim());
    });
    return [form, el("p", { class: "none" }, t("modelNameHint"))];
  }

  drawPulls() {
    const focused = document.activeElement?.dataset?.pull;
    replace(this.running, [...pulls].map(([name, job]) => pullNode(name, job)));
    if (focused) this.running.querySelector(`[data-pull="${CSS.escape(focused)}"]`)?.focus();
  }
}

function pullNode(name, job) {
  const { progress, failure, note } = job;
  if (failure) {
    return el(
      "div",
      { class: "card pull failed", role: "alert" },
      el("div", { class: "card-text" }, el("b", {}, name), el("small", { class: "warning" }, failure.message)),
      el("button", { type: "button", onclick: () => cancelPull(name) }, t("dismiss")),
      el("button", { type: "button", class: "main", onclick: () => pull(name) }, t("tryAgain")),
    );
  }
  const share = progress?.total_bytes ? Math.min(100, (100 * progress.done_bytes) / progress.total_bytes) : 0;
  const bar = el("div", { class: "meter", role: "progressbar", "aria-label": name, "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": Math.round(share) }, el("div"));
  bar.firstChild.style.setProperty("width", `${share}%`);
  const facts = progress
    ? [
        progress.phase === "check" ? t("checking") : "",
        t("sizeOf", { done: size(progress.done_bytes), total: progress.total_bytes ? size(progress.total_bytes) : "?" }),
        progress.rate_bytes_s ? t("bytesPerSecond", { size: size(progress.rate_bytes_s) }) : "",
        progress.eta_s ? t("timeLeft", { time: duration(progress.eta_s) }) : "",
      ]
    : [t("asking")];
  return el(
    "div",
    { class: "card pull" },
    el("div", { class: "card-text" }, el("b", {}, name), bar, el("small", {}, facts.filter(Boolean).join(" · ")), note && el("small", {}, note)),
    el("button", { type: "button", "data-pull": name, title: t("cancelPullText"), onclick: () => cancelPull(name) }, t("cancel")),
  );
}

/** Memory by use, of what the devices have. */
function memoryBar(plan) {
  const shares = plan.shares ?? [];
  const sum = (name) => shares.reduce((total, share) => total + (share[name] ?? 0), 0);
  const parts = { weights: sum("weights_bytes"), kv: sum("kv_bytes"), compute: sum("compute_bytes") + sum("fixed_bytes") };
  const used = parts.weights + parts.kv + parts.compute;
  const whole = Math.max(sum("budget_bytes"), used, 1);
  const label = t("memoryParts", { weights: size(parts.weights), kv: size(parts.kv), compute: size(parts.compute), whole: size(whole) });
  const bar = el("div", { class: "stack", role: "img", "aria-label": label, title: label });
  Object.values(parts).forEach((bytes, at) => {
    const share = el("i", { class: `tone-${at}` });
    share.style.setProperty("width", `${(100 * bytes) / whole}%`);
    bar.append(share);
  });
  return el("div", { class: "memory" }, bar, el("small", {}, t("memoryOf", { used: size(used), whole: size(whole) })));
}
