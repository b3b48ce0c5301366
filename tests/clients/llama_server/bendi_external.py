"""A pytest plugin under which llama.cpp's own server tests, unchanged, ask a running `bendi serve`.

Those tests start llama-server with one model and options such as a seed, and leave out the model and the `/v1` of the
paths. What bendi takes by request instead is added to each request here: nothing else is changed. Tests that need
another option of the command line, or an endpoint of llama-server only, fail: docs/conformance.md says which and why.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from conftest import ROOT, serving  # noqa: E402

_OPENAI_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/rerank", "/models")
_NAMES = ("stories260K", "gpt-3.5-turbo", "gpt-3.5-turbo-instruct", "davinci-002", "gpt-4.1", "test")
"""Names that the tests ask for: all of the one model that they are written for."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    home = Path(tempfile.mkdtemp(prefix="bendi-conformance-"))
    models = home / "models"
    models.mkdir()
    data = Path(os.environ.get("BENDI_TEST_DATA") or ROOT.parent / "shared" / "data")
    for name in _NAMES:
        shutil.copy(data / "stories260K" / "stories260K-f32.gguf", models / f"{name}.gguf")
    context = serving(home, models)
    url = context.__enter__()
    os.environ["DEBUG_EXTERNAL"] = "1"
    os.environ["PORT"] = url.rpartition(":")[2]

    def end() -> None:
        context.__exit__(None, None, None)
        shutil.rmtree(home)

    config.add_cleanup(end)


@pytest.fixture(autouse=True)
def _as_bendi_takes_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Adds what llama-server was told when it was started."""
    plain = requests.Session.request

    def request(session: requests.Session, method: str, url: str, **options: Any) -> requests.Response:
        head, slash, path = url.partition("://")[2].partition("/")
        path = slash + path
        if path.startswith(_OPENAI_PATHS):
            url = f"http://{head}/v1{path}"
        body = options.get("json")
        if method.upper() == "POST" and isinstance(body, dict):
            given = {name: value for name, value in body.items() if value is not None or name != "model"}
            options["json"] = {"model": "stories260K", "seed": 42} | given
        return plain(session, method, url, **options)

    monkeypatch.setattr(requests.Session, "request", request)
    yield
