"""Prices of the cloud: the snapshot, the user's own, and how the snapshot is made."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from bendi.energy import bundled_prices, cloud_prices
from bendi.energy.cloud_prices import FILE_NAME, parse_prices
from bendi.errors import ConfigError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "cloud_prices.py"


def test_snapshot() -> None:
    prices = bundled_prices()
    assert 20 <= len(prices) <= 40
    for name, price in prices.items():
        assert price.model == name
        assert 0 < price.input_usd <= price.output_usd < 1000
        assert "litellm" in price.source and date.fromisoformat(price.date) == date(2026, 7, 24)
    assert (prices["gpt-4o"].input_usd, prices["gpt-4o"].output_usd) == (2.5, 10.0)


def test_users_own_prices_go_first(tmp_path: Path) -> None:
    assert cloud_prices(tmp_path) == bundled_prices() == cloud_prices()
    (tmp_path / FILE_NAME).write_text(
        'source = "my contract"\ndate = 2026-11-01\n'
        '[models]\n"gpt-4o" = { input_usd = 1, output_usd = 4.5 }\n'
        'mine = { input_usd = 0, output_usd = 2, source = "https://example.org", date = "2026-10-05" }\n'
    )
    prices = cloud_prices(tmp_path)
    assert len(prices) == len(bundled_prices()) + 1
    assert (prices["gpt-4o"].output_usd, prices["gpt-4o"].date) == (4.5, "2026-11-01")
    assert (prices["mine"].source, prices["mine"].date) == ("https://example.org", "2026-10-05")


GOOD = 'source = "x"\ndate = 2026-11-01\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("= 5", "TOML"),
        ('models = "x"', "no list of prices"),
        (GOOD + "price = 5", "no list of prices"),
        (GOOD + "[models]\nm = 5", "'m'"),
        (GOOD + "[models]\nm = { input_usd = 1, output_usd = 1, per = 5 }", "'m'"),
        (GOOD + "[models]\nm = { input_usd = 1 }", "output_usd"),
        (GOOD + '[models]\nm = { input_usd = 1, output_usd = "2" }', "output_usd"),
        (GOOD + "[models]\nm = { input_usd = -1, output_usd = 2 }", "output_usd"),
        (GOOD + "[models]\nm = { input_usd = nan, output_usd = 2 }", "output_usd"),
        (GOOD + "[models]\nm = { input_usd = true, output_usd = 2 }", "output_usd"),
        ("[models]\nm = { input_usd = 1, output_usd = 2 }", "no source or no date"),
        ('source = "x"\n[models]\nm = { input_usd = 1, output_usd = 2 }', "no source or no date"),
        ('source = "x"\ndate = "soon"\n[models]\nm = { input_usd = 1, output_usd = 2 }', "no source or no date"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ConfigError) as error:
        cloud_prices(tmp_path)
    assert said in error.value.message and str(tmp_path) in error.value.message


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        cloud_prices(tmp_path)
    (tmp_path / FILE_NAME).write_text("#" * (1 << 21))
    with pytest.raises(ConfigError, match="too large"):
        cloud_prices(tmp_path)


def run_tool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True, timeout=60)


def test_snapshot_is_what_the_tool_makes(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "model-prices" / "model_prices_and_context_window.json"
    done = run_tool(source, "--check")
    assert done.returncode == 0, done.stderr
    table = json.loads(source.read_text("utf-8"))
    table["gpt-4o"]["input_cost_per_token"] *= 2
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(table))
    assert run_tool(changed, "--check").returncode == 1
    price = bundled_prices()["kimi-k2.6"]
    assert price.input_usd == pytest.approx(1e6 * table["kimi-k2.6"]["input_cost_per_token"])


def test_user_file_may_begin_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("\ufeff" + GOOD, "utf-8")
    assert cloud_prices(tmp_path) == bundled_prices()
    assert parse_prices(GOOD, "x") == {}
