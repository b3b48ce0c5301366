"""Makes `src/bendi/energy/cloud_prices.toml` from a file in LiteLLM's schema.

    python tools/cloud_prices.py model_prices_and_context_window.json --date 2026-07-24 --source "..." [--check]

`--check` fails when the file is not what would be written. LiteLLM has US dollars for a token; here it is a million.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "src" / "bendi" / "energy" / "cloud_prices.toml"
SOURCE = (
    "BerriAI/litellm (MIT), as copied by Wei-Shaw/model-price-repo, "
    "commit f9ff14734f6203c490573cb1e2ae8fdac7a52a41, model_prices_and_context_window.json"
)
DATE = "2026-07-24"
MODELS = (
    "claude-haiku-4-5", "claude-opus-4-8", "claude-opus-5", "claude-sonnet-4-6", "claude-sonnet-5",
    "deepseek-chat", "deepseek-reasoner", "deepseek-v4-flash", "deepseek-v4-pro",
    "gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-2.5-pro", "gemini-3-pro-preview", "gemini-3.5-flash",
    "gemini-3.5-flash-lite", "gemini-3.6-flash",
    "glm-5.1", "gpt-4.1", "gpt-4.1-mini", "gpt-4o", "gpt-4o-mini", "gpt-5", "gpt-5-mini", "gpt-5-nano", "gpt-5.4-mini",
    "gpt-5.4-nano", "gpt-5.5", "gpt-5.6", "gpt-5.6-luna", "gpt-5.6-terra",
    "grok-4.3", "grok-4.5", "kimi-k2.5", "kimi-k2.6", "minimax-m2.7", "o4-mini",
)  # fmt: skip
HEAD = """\
# What models cost in the cloud: US dollars for a million input and output tokens, without cache or batch discount.
# Made by tools/cloud_prices.py; prices of your own go into a file of this form in bendi's configuration folder.
"""


def snapshot(table: Mapping[str, Any], source: str, day: str) -> str:
    """The file. Raises KeyError for a model that the table does not price."""
    lines = [HEAD, f"source = {json.dumps(source)}", f"date = {day}", "", "[models]"]
    for name in MODELS:
        row = table[name]
        prices = [round(float(row[key]) * 1e6, 6) for key in ("input_cost_per_token", "output_cost_per_token")]
        lines.append(f"{json.dumps(name)} = {{ input_usd = {prices[0]:g}, output_usd = {prices[1]:g} }}")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes the snapshot of prices.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--source", default=SOURCE)
    parser.add_argument("--date", default=DATE)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = snapshot(json.loads(options.file.read_text("utf-8")), options.source, options.date)
    if not options.check:
        TARGET.write_text(text, "utf-8")
    elif not TARGET.exists() or TARGET.read_text("utf-8") != text:
        print(f"{TARGET}: not up to date, run python tools/cloud_prices.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
