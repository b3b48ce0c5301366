"""What was found when a model was tuned, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from bendi.cli import output
from bendi.engines.paired import CONFIDENCE, Speedup
from bendi.engines.tuning_options import SETTINGS
from bendi.engines.tuning_report import Trial, Tuned, TuningReport
from bendi.i18n import N_, _
from bendi.units import format_duration

_VERDICTS = {
    "faster": N_("faster"),
    "not faster": N_("no difference"),
    "slower": N_("slower"),
    "failed": N_("does not work"),
    "no time": N_("not tried: no time left"),
}
_HEAVILY_DISTURBED = 0.25


def print_report(report: TuningReport) -> None:
    """Every comparison, and what came of all of them."""
    shape = report.shape
    output.data(
        _("{model}, for {use}: after {depth} tokens, a prompt of {prompt} and an answer of {answer} tokens").format(
            model=report.model,
            use=report.workload,
            depth=shape.depth_tok,
            prompt=shape.prompt_tok,
            answer=shape.answer_tok,
        )
    )
    output.data("")
    if report.trials:
        headings = [_("SETTING"), _("TRIED"), "PP", "TG", _("SPEED"), _("INTERVAL"), _("PAIRS"), _("RESULT")]
        rows = [*_default_rows(report.trials), *map(_row, report.trials)]
        output.table(headings, rows, right=frozenset({2, 3, 4, 5, 6}))
        output.data(
            _(
                "SPEED: of whole requests, times that of the best before; with {share:.0%} certainty it lies in the "
                "interval."
            ).format(share=CONFIDENCE)
        )
        output.data("")
    output.facts(_facts(report))
    for trial in (*report.trials, *([report.final] if report.final else [])):
        if trial.reason:
            output.say(f"{_name(trial)} {trial.value}: {trial.reason}")
    _remark(report)


def print_list(reports: Sequence[TuningReport]) -> None:
    """One line for each model."""
    headings = [_("MODEL"), _("USE"), "KV", _("SETTINGS"), _("GAIN"), _("ENGINE BUILD"), _("MEASURED")]
    rows = [
        [
            report.model,
            report.workload,
            report.kv_type,
            settings_text(report.chosen, report.default) if report.gained else _("the usual ones"),
            _speed_text(report.final.speed) if report.gained and report.final else "-",
            report.build,
            report.measured_at,
        ]
        for report in reports
    ]
    output.table(headings, rows)


def settings_text(chosen: Tuned, default: Tuned) -> str:
    """What of `chosen` differs from `default`."""
    parts = []
    if chosen.engine != default.engine:
        parts.append(_("engine build {name}").format(name=chosen.engine))
    if (chosen.threads, chosen.prompt_threads) != (default.threads, default.prompt_threads):
        parts.append(_("{count} threads").format(count=chosen.threads))
        if chosen.prompt_threads:
            parts.append(_("{count} for prompts").format(count=chosen.prompt_threads))
    if chosen.flash_attention != default.flash_attention:
        parts.append(_("flash attention off"))
    if chosen.repack != default.repack:
        parts.append(_("weights not repacked"))
    if chosen.batch_tok != default.batch_tok:
        parts.append(_("batches of {count} tokens").format(count=chosen.batch_tok))
    if chosen.keep_to_cores != default.keep_to_cores:
        parts.append(_("one thread for each core"))
    if chosen.spread_numa != default.spread_numa:
        parts.append(_("threads on all NUMA nodes"))
    return ", ".join(parts)


def _default_rows(trials: Sequence[Trial]) -> list[list[str]]:
    first = next((trial for trial in trials if trial.against_pp_tok_s), None)
    if first is None:
        return []
    rates = [_rate(first.against_pp_tok_s), _rate(first.against_tg_tok_s)]
    return [[_("the usual settings"), "", *rates, "1", "-", "-", ""]]


def _row(trial: Trial) -> list[str]:
    return [
        _name(trial),
        trial.value,
        _rate(trial.pp_tok_s),
        _rate(trial.tg_tok_s),
        f"{trial.speed.middle:.2f}" if trial.speed else "-",
        _interval(trial.speed),
        str(trial.pairs) if trial.pairs else "-",
        _(_VERDICTS.get(trial.verdict, trial.verdict)),
    ]


def _facts(report: TuningReport) -> list[tuple[str, str]]:
    final = report.final
    lines = [
        (_("chosen"), settings_text(report.chosen, report.default) if report.gained else _("the usual settings")),
        (_("engine build"), report.build),
    ]
    if final is not None and final.speed is not None:
        lines += [
            (_("against the default"), _speed_text(final.speed)),
            ("PP", f"{_rate(final.against_pp_tok_s)} → {_rate(final.pp_tok_s)} tok/s"),
            ("TG", f"{_rate(final.against_tg_tok_s)} → {_rate(final.tg_tok_s)} tok/s"),
        ]
    measured = _("{when}, in {seconds:.0f} s").format(when=report.measured_at, seconds=report.took_s)
    return [*lines, (_("measured"), measured)]


def _remark(report: TuningReport) -> None:
    """What the user should know besides."""
    if not report.gained:
        output.say(_found_nothing(report))
    answers = report.answers
    if answers is not None and not answers.tolerable and answers.kl is not None and report.gained:
        output.say(
            _(
                "Answers may differ a little: the probabilities of the next token differ by up to {kl:.2g} nats (KL), "
                "more than between engine builds that bendi takes for equal."
            ).format(kl=answers.kl)
        )
    if report.disturbed_share > _HEAVILY_DISTURBED:
        output.say(
            _("Something else was running beside {share:.0%} of the measurements: tune again when it is quiet.").format(
                share=report.disturbed_share
            )
        )
    late = sum(trial.verdict == "no time" for trial in report.trials)
    if late:
        again = f"bendi tune {report.model} --seconds {max(round(2 * report.took_s, -1), 120):.0f}"
        output.say(
            _("{count} settings were not tried for lack of time ({time}): {command}").format(
                count=late, time=format_duration(report.took_s), command=again
            )
        )


def _found_nothing(report: TuningReport) -> str:
    if report.answers is not None and report.answers.kl is None:
        return _("What was faster does not answer as it should, so the usual settings are kept.")
    if report.final is not None:
        return _("What looked faster was not so when it was measured again, so the usual settings are kept.")
    return _("Nothing is faster here than the usual settings.")


def _name(trial: Trial) -> str:
    return _(SETTINGS[trial.setting]) if trial.setting in SETTINGS else _("the best against the default")


def _rate(tok_s: float | None) -> str:
    return f"{tok_s:.4g}" if tok_s else "-"


def _interval(speed: Speedup | None) -> str:
    return f"{speed.low:.2f}-{speed.high:.2f}" if speed and speed.low is not None and speed.high is not None else "-"


def _speed_text(speed: Speedup | None) -> str:
    if speed is None:
        return "-"
    interval = _interval(speed)
    text = _("{ratio:.2f} times as fast").format(ratio=speed.middle)
    return text if interval == "-" else f"{text} ({interval})"
