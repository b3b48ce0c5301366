"""The `openai` package for JavaScript, unmodified, run by node."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from conftest import ROOT, Server

PACKAGES = ROOT / ".cache" / "npm-client"


def test_openai(server: Server) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not here")
    if not (PACKAGES / "node_modules" / "openai").is_dir():
        pytest.skip("the npm package openai is not here: scripts/test-clients fetches it where npm is")
    script = ROOT / "tests" / "clients" / "npm" / "chat.mjs"
    command = [node, str(script), server.url, str(PACKAGES / "package.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert "demo" in got["models"]
    assert got["whole"] == got["streamed"] != ""
    assert got["tokens"] == 12
    assert got["call"]["name"] == "f"
    assert isinstance(json.loads(got["call"]["arguments"])["a"], int)
    assert got["first"] and got["second"] and got["previous"]
    assert got["missing"] == ["NotFoundError", 404, "model_not_found"]
