"""Engines under test by name, and the native build that tests use: one that `scripts/test-native` has made."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bendi.engines import fake, native, native_builds, wheel
from bendi.engines.native_builds import NativeBuild
from bendi.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = Path(os.environ.get("BENDI_TEST_NATIVE_CACHE") or ROOT / ".cache" / "native")


def native_build() -> NativeBuild | None:
    """The newest intact build in the cache of the tests, proven or not: proving it is a test, too."""
    settings = load_settings({"BENDI_CACHE": str(CACHE), "BENDI_CONFIG": str(CACHE / "config")})
    return next((build for build in native_builds.all_builds(settings) if native_builds.intact(build)), None)


def needed_build() -> NativeBuild:
    build = native_build()
    if build is None:
        pytest.skip(f"no native build in {CACHE}: scripts/test-native makes one")
    return build


def opener(name: str) -> Callable[..., Any]:
    """`open_engine` of an engine; skips the test where there is no native build."""
    if name == "native":
        return functools.partial(native.open_engine, build=needed_build())
    return {"fake": fake, "wheel": wheel}[name].open_engine
