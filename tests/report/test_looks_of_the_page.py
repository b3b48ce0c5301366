"""The page in a browser: on a phone and a screen, light and dark, in both languages, without a network."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_results import options, rich

from bendi import i18n
from bendi.report import write_page

BROWSER = Path(__file__).resolve().parent.parent / "server" / "page" / "browser.py"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("browser_of_pages", BROWSER)
    assert spec and spec.loader
    browser = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(browser)
    programs = browser.find_programs()
    if programs is None:
        pytest.skip("no Chromium with its driver: scripts/install-browser installs them")
    driver = browser.start_browser(*programs)
    yield driver
    driver.quit()


def opened(driver: Any, path: Path, width: int, theme: str) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.get_log("browser")
    driver.get(path.as_uri())


def lightness(driver: Any, selector: str, what: str) -> int:
    colour = driver.execute_script(
        "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, what
    )
    return max(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_in_a_browser(chromium: Any, tmp_path: Path, language: str) -> None:
    i18n.set_language(language)
    results = rich()
    path = tmp_path / "report.html"
    write_page(results, options(results), path)
    for width, theme in ((1200, "light"), (390, "dark")):
        opened(chromium, path, width, theme)
        run = chromium.execute_script
        assert run("return seen") == [] and chromium.get_log("browser") == []
        assert run("return performance.getEntriesByType('resource').length") == 0
        assert run("return document.documentElement.scrollWidth") == width
        shown = run("return [...document.querySelectorAll('svg')].filter((s) => s.checkVisibility()).map((s) => "
                    "s.classList[0])")  # fmt: skip
        assert set(shown) == {"wide" if width > 600 else "narrow"}
        ground = lightness(chromium, "html", "backgroundColor")
        letters = lightness(chromium, "figure text", "fill")
        assert (ground > 200 and letters < 130) if theme == "light" else (ground < 60 and letters > 150)
        # Letters in a drawing are neither lost at its edges nor too small to be read.
        lost = run(
            "return [...document.querySelectorAll('svg text')].filter((text) => {"
            "if (!text.checkVisibility()) return false;"
            "const box = text.getBoundingClientRect(), all = text.ownerSVGElement.getBoundingClientRect();"
            "return box.left < all.left - 12 || box.right > all.right + 12 || box.height < 11;"
            "}).map((text) => text.textContent)"
        )
        assert lost == []
