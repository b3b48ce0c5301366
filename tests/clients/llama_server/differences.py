"""Which tests bendi does not pass, and why (differs.toml), and the tables that are made of it for the documentation."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_BEGIN, _END = "<!-- made by scripts/test-llama-server --write-tables -->", "<!-- until here -->"
_COLUMNS = ("passed", "differs", "skipped", "left out")


@dataclass(frozen=True)
class Difference:
    """`test`: of which tests: a file, `file::test` with all of its parameters, or some of them in brackets, where `*`
    stands for anything. `why`: bendi must differ."""

    test: str
    why: str

    @property
    def file(self) -> str:
        return self.test.partition("::")[0]

    def is_of(self, name: str) -> bool:
        pattern = ".*".join(re.escape(part) for part in self.test.split("*"))
        return re.fullmatch(rf"{pattern}(::.*|\[.*\])?", name, re.DOTALL) is not None


@dataclass(frozen=True)
class Differences:
    rows: tuple[Difference, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        groups = tomllib.loads(path.read_text("utf-8"))["differs"]
        return cls(
            tuple(Difference(test, " ".join(group["why"].split())) for group in groups for test in group["tests"])
        )

    def reasons(self, ids: Sequence[str]) -> list[str]:
        """Why bendi differs, for each test; empty where it should not. Raises ValueError where two rows say so."""
        found = []
        for name in map(_name, ids):
            rows = [row for row in self.rows if row.is_of(name)]
            if len(rows) > 1:
                raise ValueError(f"differs.toml has {name} twice: {rows[0].test}, {rows[1].test}")
            found.append(rows[0].why if rows else "")
        return found

    def without_test(self, ids: Sequence[str]) -> list[str]:
        """Rows that are of no test at all."""
        names = [_name(test_id) for test_id in ids]
        return [row.test for row in self.rows if not any(row.is_of(name) for name in names)]


@dataclass
class Outcomes:
    """What came of each test: passed, differs, skipped, failed, or left out because it is marked slow."""

    by_name: dict[str, str] = field(default_factory=dict)

    def add(self, test_id: str, outcome: str) -> None:
        self.by_name.setdefault(_name(test_id), outcome)

    def counted(self, file: str) -> Counter[str]:
        return Counter(outcome for name, outcome in self.by_name.items() if name.partition("::")[0] == file)

    def files(self) -> list[str]:
        return sorted({name.partition("::")[0] for name in self.by_name})


def tables(outcomes: Outcomes, differences: Differences) -> str:
    """Markdown: how many of each file, then each difference with its reason."""
    lines = [f"| file | {' | '.join(_COLUMNS)} |", f"|---|{'---|' * len(_COLUMNS)}"]
    total: Counter[str] = Counter()
    for file in outcomes.files():
        counted = outcomes.counted(file)
        total += counted
        lines.append(f"| `{file}` | {' | '.join(str(counted[column]) for column in _COLUMNS)} |")
    lines.append(f"| all | {' | '.join(str(total[column]) for column in _COLUMNS)} |")
    for file in outcomes.files():
        rows = [(row, _count(row, outcomes)) for row in differences.rows if row.file == file]
        told = [f"| {_shown(row, count)} | {row.why} |" for row, count in rows if count]
        if told:
            lines += ["", f"### `{file}`", "", "| tests | why bendi differs |", "|---|---|", *told]
    return "\n".join(lines)


def brought_up_to_date(document: str, made: str) -> str:
    """`document` with `made` between its two marks."""
    before, _begin, rest = document.partition(_BEGIN)
    _old, _end, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n\n{made}\n\n{_END}{after}"


def _count(row: Difference, outcomes: Outcomes) -> int:
    return sum(outcome == "differs" and row.is_of(name) for name, outcome in outcomes.by_name.items())


def _shown(row: Difference, count: int) -> str:
    test = row.test.partition("::")[2].replace("|", "\\|")
    name = f"`{test}`" if test else "all"
    return f"{name} ({count})" if count > 1 else name


def _name(test_id: str) -> str:
    return test_id.removeprefix("unit/")
