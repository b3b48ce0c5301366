"""A pytest plugin under which llama.cpp's own server tests, unchanged, ask a running `bendi serve`.

`translation` says to bendi what those tests say to llama-server's command line. Which tests bendi does not pass, and
why it must differ, is in differs.toml: the run fails when another test fails, when one of those passes, or when
docs/conformance.md, whose tables are made of both, says something else (`--write-tables` makes them).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

import openai  # noqa: E402
import wget  # noqa: E402
from differences import Differences, Outcomes, brought_up_to_date, tables  # noqa: E402
from translation import Running, Translator  # noqa: E402

from conftest import ROOT, new_key, serving  # noqa: E402

DOCUMENT = ROOT / "docs" / "conformance.md"
_ORIGINS = [f"http://{host}{port}" for host in ("localhost", "127.0.0.1", "[::1]") for port in ("", ":3000", ":8080")]
"""llama-server has a word for pages of this machine at any port; bendi wants each origin named."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-tables", action="store_true", help=f"write the tables in {DOCUMENT.name}")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    stack = ExitStack()
    config.add_cleanup(stack.close)
    home = Path(tempfile.mkdtemp(prefix="bendi-conformance-"))
    stack.callback(shutil.rmtree, home)
    models = home / "models"
    models.mkdir()
    subprocess.run([str(ROOT / ".venv" / "bin" / "python"), str(HERE / "make_models.py"), str(models)], check=True)

    def started(name: str, *options: str) -> Running:
        own = home / name
        own.mkdir()
        key = new_key(own) if options else ""
        url = stack.enter_context(serving(own, models, *options))
        return Running(int(url.rpartition(":")[2]), key)

    @cache
    def guarded() -> Running:
        return started("guarded", *(word for origin in _ORIGINS for word in ("--origin", origin)))

    plain = started("plain")
    os.environ["DEBUG_EXTERNAL"] = "1"
    os.environ["PORT"] = str(plain.port)
    translator = Translator(plain, guarded, (models / "picture.png").read_bytes())
    config.pluginmanager.register(Run(config, translator), "bendi-run")


class Run:
    """One run of the tests: what they ask, and what came of it."""

    def __init__(self, config: pytest.Config, translator: Translator) -> None:
        self._config, self._translator = config, translator
        self._differences = Differences.read(HERE / "differs.toml")
        self._outcomes = Outcomes()
        self._complete = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Before tests that are marked slow are left out."""
        names = [item.nodeid for item in items]
        for item, why in zip(items, self._differences.reasons(names), strict=True):
            if why:
                item.add_marker(pytest.mark.xfail(reason=why, strict=True))
        self._complete = [Path(arg).name for arg in config.args] == ["unit"] and not config.option.keyword
        unknown = self._differences.without_test(names) if self._complete else []
        if unknown:
            raise pytest.UsageError(f"differs.toml names tests that do not exist: {', '.join(unknown)}")

    def pytest_collection_finish(self) -> None:
        import utils  # llama.cpp's; it is found from here on

        translator = self._translator

        def start(server: Any, **_options: Any) -> None:
            translator.start(server)

        def request(session: requests.Session, method: str, url: str, **options: Any) -> requests.Response:
            return translator.request(session, method, url, **options)

        def prepare(client: openai.OpenAI, options: Any) -> Any:
            return translator.prepare(client, options)

        def no_download(_url: str, out: str) -> str:
            return out

        utils.ServerProcess.start = start
        requests.Session.request = request  # type: ignore[method-assign]
        openai.OpenAI._prepare_options = prepare  # type: ignore[method-assign]
        wget.download = no_download

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        for item in items:
            self._outcomes.add(item.nodeid, "left out")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._outcomes.add(report.nodeid, self._outcome(report))

    def _outcome(self, report: pytest.TestReport) -> str:
        """What is skipped on some machines, for want of a container engine, counts as on all others."""
        if hasattr(report, "wasxfail") or (report.skipped and any(self._differences.reasons([report.nodeid]))):
            return "differs"
        return report.outcome

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._complete or session.testsfailed:
            return
        old = DOCUMENT.read_text("utf-8")
        new = brought_up_to_date(old, tables(self._outcomes, self._differences))
        if self._config.option.write_tables:
            DOCUMENT.write_text(new, "utf-8")
        elif old != new:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            reporter = self._config.pluginmanager.get_plugin("terminalreporter")
            reporter.write_line(f"{DOCUMENT} says something else: scripts/test-llama-server --write-tables", red=True)
