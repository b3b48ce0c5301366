"""For programs and documents: CSV, markdown, the tables of studies, pictures."""

from __future__ import annotations

import csv as csv_module
import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean, median, quantiles, stdev

import pytest
from made_results import COUNTER, Study, made, options, rich

from bendi import i18n
from bendi.energy.cost import CostOptions, Tariff
from bendi.report import ReportOptions, csv, csv_of_repeats, markdown, paper, paper_tables, write_figures
from bendi.report.drawing import can_write_chinese
from bendi.results import Energy, Results


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv_module.DictReader(io.StringIO(text)))


def test_csv_holds_every_statistic() -> None:
    results = made(Study(quantizations=("Q4_K_M",), garbage=("Q4_K_M",)))
    cell = results.facts.cells[0]
    found = {row["metric"]: row for row in rows_of(csv(results)) if row["engine"] == cell.engine}
    values = [repeat.tg_tok_s or 0 for repeat in results.of(cell)]
    tg = found["tg_tok_s"]
    assert float(tg["median"]) == pytest.approx(median(values))
    assert float(tg["mean"]) == pytest.approx(mean(values))
    assert float(tg["sd"]) == pytest.approx(stdev(values))
    assert [float(tg["q1"]), float(tg["q3"])] == pytest.approx(quantiles(values, n=4, method="inclusive")[::2])
    assert (tg["n"], tg["unit"], tg["ranked"], tg["tier"]) == ("10", "tok/s", "true", "")
    energy = found["gross_j_answer_tok"]
    assert (energy["tier"], energy["covers"], energy["meter"]) == ("counter", "cpu package + dram", "rapl")
    garbage = [row for row in rows_of(csv(results)) if row["engine"] == "bendi"]
    assert garbage and all(row["ranked"] == "false" and "garbage" in row["why_not"] for row in garbage)


def test_csv_of_every_repeat() -> None:
    results = rich()
    rows = rows_of(csv_of_repeats(results))
    assert len(rows) == 3 * len(results.repeats)
    first = results.of(results.facts.cells[0])[0]
    assert float(rows[0]["gross_j"]) == first.energy[0].gross_j
    assert float(rows[0]["tg_tok_s"]) == first.tg_tok_s
    assert int(rows[0]["peak_memory_bytes"]) == first.peak_memory_bytes
    assert sum(row["reason"] == "counter_reset" for row in rows) == 20
    bare = replace(results, repeats=(replace(first, energy=()),))
    (row,) = rows_of(csv_of_repeats(bare))
    assert (row["tier"], row["gross_j"]) == ("none", "")


def test_csv_is_the_same_in_every_language() -> None:
    results = made(Study(quantizations=("Q8_0",), blocks=2))
    english = csv(results), csv_of_repeats(results)
    i18n.set_language("zh")
    assert (csv(results), csv_of_repeats(results)) == english


def test_names_are_neither_formulas_nor_marks() -> None:
    name = "=HYPERLINK(1) | <b>*x*</b>\n# [a](b)"
    results = made(Study(quantizations=(name,), models=("@m",), blocks=2))
    row = rows_of(csv(results))[0]
    assert row["quantization"].startswith("'=HYPERLINK") and row["model"] == "'@m"
    text = markdown(results, options(results)) + paper(results)
    assert "<b>" not in text and "[a](b)" not in text
    for line in text.splitlines():
        if line.startswith("| "):
            assert "\n" not in line and "HYPERLINK(1) |" not in line
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1


def test_markdown_says_everything_that_the_page_says() -> None:
    results = rich()
    text = markdown(results, options(results))
    assert text.startswith("# Llama 3.1 8B on this machine\n")
    for said in ("could not have been seen", "### Ranking by Token generation", "≤ ",
                 "not measured: The counter began anew", "*answers garbage: repeats one word for ever", "SHA-256",
                 "n = 10 repeats", "some-model-8b"):  # fmt: skip
        assert said in text, said


def published_by_hand(results: Results) -> tuple[float, float, float]:
    """Median and IQR of the formula, and all energy over all tokens, in Wh per token: of the first cell."""
    repeats = results.of(results.facts.cells[0])
    formula = [(each.energy[0].mean_w or 0) / (each.tg_tok_s or 1) / 3600 for each in repeats]
    first, _second, third = quantiles(formula, n=4, method="inclusive")
    joules = sum(each.energy[0].gross_j or 0 for each in repeats)
    return median(formula), third - first, joules / sum(each.output_tok for each in repeats) / 3600


def test_the_tables_of_a_study_are_rebuilt() -> None:
    settings = ({"split_mode": "row"}, {"split_mode": "layer"})
    study = Study(models=("Llama-3.1-8B", "Llama-3.1-70B"), engines=("llama.cpp", "ollama"), settings=settings)
    results = made(study)
    tables = paper_tables(results, ReportOptions(cost=CostOptions(Tariff("USD", 0.14))))
    assert [table.title for table in tables] == [
        f"{model} · chat · energy counter: cpu package + dram" for model in study.models
    ]
    assert len(tables[0].rows) == 6 * 2 * 2
    row = tables[0].rows[0]
    assert row[:4] == ("Llama-3.1-8B", "Q8_0", "llama.cpp", "split_mode=row")
    middle, iqr, metered = published_by_hand(results)
    assert row[6] == f"{middle:.6f} ± {iqr:.6f}"
    assert row[7] == f"{metered:.6f}"
    assert row[8] == f"{100 * (middle / metered - 1):+.1f}%"
    # Of a million tokens, in kWh: a thousand times the Wh of one.
    assert float(row[9].split(" ± ")[0]) == pytest.approx(middle * 1000 * 0.14, rel=1e-3)
    assert float(row[10]) == pytest.approx(metered * 1000 * 0.14, rel=1e-3)
    assert row[11] == "10"
    means = paper_tables(results, ReportOptions(), "mean")[0].rows[0]
    values = [repeat.tg_tok_s or 0 for repeat in results.of(results.facts.cells[0])]
    assert means[5] == f"{mean(values):.2f} ± {stdev(values):.2f}"
    assert means[9] == "–"


def test_a_study_without_energy_is_rebuilt_without() -> None:
    results = made(Study(quantizations=("Q8_0",)))
    none = Energy("", "none", reason="vm_no_counter")
    bare = replace(results, repeats=tuple(replace(each, energy=(none,)) for each in results.repeats))
    text = paper(bare)
    assert "energy not measured" in text and "This is a virtual machine" in text
    assert re.search(r"\| 1\d\.\d+ ± 0\.\d+ \| – \| – \| – \| – \| – \| 10 \|", text)
    both = made(Study(meters=(("a", "counter", COUNTER, 1.0), ("b", "bound", ("gpu board",), 2.0)), blocks=2))
    assert len(paper_tables(both)) == 1


def test_one_repeat_has_no_spread() -> None:
    results = made(Study(quantizations=("Q8_0",), engines=("bendi",), blocks=1))
    for statistic in ("median", "mean"):
        (table,) = paper_tables(results, ReportOptions(), statistic)  # type: ignore[arg-type]
        assert "±" not in " ".join(table.rows[0])
    line = next(line for line in markdown(results).splitlines() if line.startswith("| 1 | Q8"))
    assert line.split(" | ")[3:5] == ["–", "–"]


def test_what_needs_no_pictures_loads_no_matplotlib() -> None:
    code = (
        "import sys; from bendi.report import ReportOptions, csv, markdown, paper, terminal; "
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_pictures(tmp_path: Path) -> None:
    results = made(Study(quantizations=("Q8_0", "Q4_K_M")))
    written = write_figures(results, options(results), tmp_path / "figures")
    names = {path.name for path in written}
    assert {"tg-1.svg", "tg-1.png", "energy-1-1.png", "predictions.svg", "quality-speed-1.svg", "cost-1-1.svg"} <= names
    assert names == {path.name for path in (tmp_path / "figures").iterdir()}
    for path in written:
        content = path.read_bytes()
        if path.suffix == ".png":
            assert content.startswith(b"\x89PNG") and int.from_bytes(content[16:20], "big") == 1760
        else:
            assert b"<text" in content and b"var(" not in content
            # A picture may be passed on without its page.
            assert b"n = 10 repeats" in content and b"model 3f1c9a" in content
    narrow = write_figures(results, options(results), tmp_path / "phone", ("svg",), narrow=True)
    assert b'viewBox="0 0 344 ' in narrow[0].read_bytes()
    with pytest.raises(ValueError):
        write_figures(results, options(results), tmp_path, ("bmp",))


def test_pictures_in_chinese_need_a_font_or_are_english(tmp_path: Path) -> None:
    results = made(Study(quantizations=("Q8_0",), blocks=2))
    i18n.set_language("zh")
    assert write_figures(results, ReportOptions(), tmp_path, ("png",))
    assert i18n.language() == "zh"
    assert isinstance(can_write_chinese(), bool)
