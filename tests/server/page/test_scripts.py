"""The page's own parsers and texts, tested by node's test runner."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NODE = shutil.which("node")
OLDEST_NODE = (20, 19)  # the first that takes the page's files for modules


def node() -> str:
    if NODE is None:
        pytest.skip("no node: the page's scripts can only be tested with it (apt-get install nodejs)")
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(int(part) for part in version.lstrip("v").split(".")[:2]) < OLDEST_NODE:
        pytest.skip(f"node {version} is too old: 20.19 is needed")
    return NODE


@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_scripts(name: str) -> None:
    done = subprocess.run([node(), "--test", str(HERE / name)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
