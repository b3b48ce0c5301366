"""The report as one HTML file: no script, nothing from outside, light and dark, for screens, phones and paper.

Everything that came from a results file is escaped: names of models are written by strangers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from bendi.i18n import _, language
from bendi.report.charts import Figure, Provenance, Table
from bendi.report.contents import Block, Contents, Section
from bendi.report.drawing import svg_for_page
from bendi.report.given import ReportOptions
from bendi.report.palette import css_variables, shade
from bendi.report.wording import clean, columns_of, visible
from bendi.report.writing import write_whole
from bendi.results import Results

_STYLE = Path(__file__).with_name("html_page.css")
_LONGEST_TEXT = 200_000
_SHORT = 26
_VARIABLES = """
  color-scheme: light dark;
  --ground: light-dark(#faf8f4, #181816);
  --accent: light-dark(#2c6a5b, #7fc4af);
  --warn-soft: light-dark(#faf0e0, #35291a);
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "PingFang SC", "HarmonyOS Sans SC", "MiSans",
    "Microsoft YaHei UI", "Source Han Sans SC", "Noto Sans CJK SC", "Noto Sans SC", sans-serif;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "Noto Serif", Georgia, "Songti SC", "Source Han Serif SC",
    "Noto Serif CJK SC", "Noto Serif SC", SimSun, serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Code", Consolas, "DejaVu Sans Mono", "Noto Sans Mono CJK SC", monospace;
"""


def write_page(results: Results, options: ReportOptions, path: Path) -> None:
    """Writes the page, whole or not at all. Raises DataError."""
    write_whole(path, page(results, options).encode())


def page(results: Results, options: ReportOptions) -> str:
    """The page, in the language in use."""
    contents = Contents(results, options)
    style = ":root {" + _VARIABLES + css_variables() + "\n}\n" + _STYLE.read_text("utf-8")
    title = _text(contents.title)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    body = [
        f"<header><h1>{title}</h1><p class=about>{_text(contents.subtitle)}</p>{_navigation(contents)}</header>",
        _findings(contents),
        *(_section(section) for section in contents.sections),
        _reading(),
        _study(results),
        _footer(results),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="{"zh-CN" if language() == "zh" else "en"}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _footer(results: Results) -> str:
    made = _("Made by bendi {version} from the results of study {study}.").format(
        version=clean(results.facts.bendi), study=clean(results.facts.study_id)
    )
    return f"<footer>{_text(made)}</footer>"


def _text(value: object) -> str:
    return escape(clean(value, 4000))


def _navigation(contents: Contents) -> str:
    links = [(section.name, section.title) for section in contents.sections]
    links += [("reading", _("How to read this")), ("study", _("The study"))]
    return "<nav>" + " ".join(f'<a href="#{name}">{_text(title)}</a>' for name, title in links) + "</nav>"


def _findings(contents: Contents) -> str:
    said = [(each.kind, each.text) for each in contents.findings]
    if not contents.results.repeats:
        said.insert(0, ("doubt", _("Nothing was measured yet.")))
    items = "".join(f'<li class="{kind}">{_text(text)}</li>' for kind, text in said)
    return f'<ul class="findings">{items}</ul>' if items else ""


def _section(section: Section) -> str:
    lead = f"<p class=text>{_text(section.text)}</p>" if section.text else ""
    blocks = "".join(_block(block) for block in section.blocks)
    return f'<section id="{section.name}"><h2>{_text(section.title)}</h2>{lead}{blocks}</section>'


def _block(block: Block) -> str:
    parts = "".join(_figure(part) if isinstance(part, Figure) else _table(part) for part in block.parts)
    if block.folded:
        head = f"<summary>{_text(block.title)} <small>{_text(block.text)}</small></summary>"
        return f'<details class="block">{head}{parts}</details>'
    head = f"<h3>{_text(block.title)}</h3>" if block.title else ""
    head += f"<p class=text>{_text(block.text)}</p>" if block.text else ""
    return f'<div class="block">{head}{parts}</div>'


def _figure(figure: Figure) -> str:
    wide, narrow = (
        svg_for_page(figure, narrow).replace("<svg ", f'<svg class="{"narrow" if narrow else "wide"}" ', 1)
        for narrow in (False, True)
    )
    legend = "".join(
        f'<li><i style="background: var(--{shade(colour)})"></i>{_text(name)}</li>' for colour, name in figure.legend
    )
    legend = f'<ul class="legend">{legend}</ul>' if legend else ""
    notes = _sentences(figure.notes)
    caption = f"<figcaption>{notes}</figcaption>" if notes else ""
    return (
        f'<figure class="card" id="figure-{escape(figure.name)}"><h4>{_text(figure.title)}</h4>{legend}{wide}{narrow}'
        f"{caption}{_where(figure.provenance)}</figure>"
    )


def _table(table: Table) -> str:
    title = _text(table.title)
    shown = [index for index in range(len(table.columns)) if index != table.remarks]
    head = "".join(f"<th scope=col{_kind(table, index)}>{_text(table.columns[index])}</th>" for index in shown)
    rows = []
    for index, row in enumerate(table.rows):
        cells = "".join(f"<td{_kind(table, place, row[place])}>{_text(row[place])}</td>" for place in shown)
        rows.append(f"<tr{' class=grey' if index in table.grey else ''}>{cells}</tr>")
    remarks = _remarks(table)
    notes = f'<p class="notes">{_sentences(table.notes)}</p>' if table.notes else ""
    where = _where(table.provenance) if table.provenance else ""
    kind, head_kind = ("details", "summary") if table.folded else ("div", "h4")
    return (
        f'<{kind} class="card" id="table-{escape(table.name)}"><{head_kind}>{title}</{head_kind}>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{remarks}{notes}{where}</{kind}>"
    )


def _remarks(table: Table) -> str:
    """Below the table, each with the name of its row: on a phone a column of sentences would be far away."""
    if table.remarks is None:
        return ""
    name = next(index for index in range(len(table.columns)) if index not in table.right)
    comma = _(", ")
    said: dict[str, list[str]] = {}
    for row in table.rows:
        if row[table.remarks]:
            said.setdefault(row[table.remarks], []).append(row[name])
    items = ""
    for remark, names in said.items():
        whom = _("All") if len(names) == len(table.rows) > 1 else comma.join(names)
        items += f"<li><b>{_text(whom)}</b> {_text(remark)}</li>"
    return f'<ul class="remarks">{items}</ul>' if items else ""


def _sentences(notes: Sequence[str]) -> str:
    return ("" if language() == "zh" else " ").join(_text(note) for note in notes)


def _kind(table: Table, index: int, text: str = "") -> str:
    """Figures stand on the right; what is short is not broken."""
    if index in table.right:
        return " class=right"
    return " class=short" if text and columns_of(text) <= _SHORT else ""


def _where(provenance: Provenance) -> str:
    ran = "".join(f"<li>{_text(line)}</li>" for line in provenance.ran)
    title = _("What ran")
    more = f"<details><summary>{_text(title)}</summary><ul>{ran}</ul></details>" if ran else ""
    return f'<div class="where">{_text(provenance.line)}{more}</div>'


def _reading() -> str:
    entries: Iterable[tuple[str, str]] = (
        (
            _("Repeat"),
            _(
                "One measurement of one combination in one block: what all statistics count. Single answers and "
                "tokens are not independent, so they are not counted."
            ),
        ),
        (
            _("95% interval"),
            _(
                "Where the true median lies, in 95 of 100 such studies. With fewer than six repeats that cannot be "
                "promised; then it is said how much can."
            ),
        ),
        (_("IQR"), _("The width of the middle half of the repeats: how much they differ, not how sure the median is.")),
        (
            _("times the best"),
            _(
                "Ratios of pairs from the same block, with the interval of Wilcoxon's signed ranks, so that a slow "
                "hour slows both of a pair."
            ),
        ),
        (
            _("Differences that could have been seen"),
            _(
                "The smallest difference that a study with as many repeats and as much noise would have found in "
                "four of five cases."
            ),
        ),
        (
            _("TG, PP, TTFT"),
            _(
                "Token generation, prompt processing, and time to the first token, all as a client sees them. "
                "Rates are tokens of a repeat over seconds of a repeat."
            ),
        ),
        (
            _("Tier"),
            _(
                "Where a figure of energy comes from: a meter at the wall, an energy counter in the hardware, "
                "power that is read again and again, what the user says, or only an upper bound."
            ),
        ),
        (_("Grey"), _("Answers garbage or was not measured. Such a configuration is shown, and never ranked.")),
    )
    items = "".join(f"<dt>{_text(term)}</dt><dd>{_text(text)}</dd>" for term, text in entries)
    title = _("How to read this")
    return f'<section id="reading"><h2>{_text(title)}</h2><dl>{items}</dl></section>'


def _study(results: Results) -> str:
    """What was asked for, and on what machine, as it is in the file."""
    facts = results.facts
    machine = json.dumps(dict(facts.machine), ensure_ascii=False, indent=2, default=str)
    parts = []
    for title, text in ((_("Study file"), facts.text), (_("Machine"), machine)):
        if text.strip():
            shown = escape(visible(text[:_LONGEST_TEXT]))
            parts.append(f"<details><summary>{_text(title)}</summary><pre>{shown}</pre></details>")
    failures = [f"<li>{_text(each.cell)} · {each.block} · {_text(each.reason)}</li>" for each in results.failures]
    if failures:
        title = _("Failed repeats")
        parts.append(f"<details><summary>{_text(title)}</summary><ul>{''.join(failures)}</ul></details>")
    title = _("The study")
    return f'<section id="study"><h2>{_text(title)}</h2>{"".join(parts)}</section>'
