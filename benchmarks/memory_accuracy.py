"""Compares the planner's memory with what the engine itself would allocate, model by model.

    python benchmarks/memory_accuracy.py [--record]

Every model of tests/published_configs.py is written as a header without weights; the pinned engine, which checks the
name and the shape of every tensor, says in a dry run what it needs: of some models at three contexts with three KV
types, of the others at two settings. Prints the worst rows and the median error of KV cache, state and compute buffer
together; the bar is 1 % or 16 MiB. `--record` stores the answers in tests/planner/memory_oracle.json.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1] / "tests" / "planner"
sys.path[:0] = [str(_TESTS), str(_TESTS.parent)]

from memory_oracle import OracleAnswer, ask_engine  # noqa: E402
from sparse_gguf import write_sparse  # noqa: E402
from synthetic_models import MODELS, MORE_MODELS  # noqa: E402

from bendi.formats import read_gguf  # noqa: E402
from bendi.planner import MemorySetup, memory_facts, memory_needed  # noqa: E402
from bendi.units import MIB  # noqa: E402

_CONTEXTS_TOK = (4096, 32768, 131072)
_KV_TYPES = ("f16", "q8_0", "q4_0")
_FEW = ((4096, "f16"), (32768, "q8_0"))


def main() -> int:
    rows: list[tuple[float, float, str]] = []
    records: list[dict[str, object]] = []
    refused: list[str] = []
    bounds: list[tuple[float, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in (*MODELS, *MORE_MODELS):
            path = write_sparse(model, Path(folder) / "model.gguf")
            facts = memory_facts(read_gguf(path))
            wanted = itertools.product(_CONTEXTS_TOK, _KV_TYPES) if model in MODELS else _FEW
            settings = sorted({(min(context_tok, facts.context_length), kv_type) for context_tok, kv_type in wanted})
            for setup in (MemorySetup(tok, type_k=kv_type, type_v=kv_type) for tok, kv_type in settings):
                answer = ask_engine(path, setup)
                label = f"{model.name} {setup.context_tok} {setup.type_k}"
                if not isinstance(answer, OracleAnswer):
                    refused.append(f"{label}: {answer[:120]}")
                    continue
                need = memory_needed(facts, setup)
                engine_mib = answer.kv + answer.state + answer.compute
                error_mib = (need.kv_bytes + need.recurrent_state_bytes + need.compute_bytes) / MIB - engine_mib
                allowed_mib = max(engine_mib / 100, 16)
                if need.exact:
                    rows.append((abs(error_mib) / allowed_mib, error_mib, label))
                else:
                    bounds.append((error_mib, label))
                records.append(
                    {"model": model.name, "tok": setup.context_tok, "kv_type": setup.type_k, **asdict(answer)}
                )
    rows.sort(reverse=True)
    print(f"{'of bar':>8} {'MiB':>9}  model, context, KV type")
    for share, error_mib, label in rows[:15]:
        print(f"{share:8.3f} {error_mib:+9.2f}  {label}")
    print(f"{len(rows)} rows, median error {statistics.median(abs(row[1]) for row in rows):.3f} MiB")
    print(f"over the bar: {sum(row[0] > 1 for row in rows)}; refused by the engine: {len(refused)}")
    print("\n".join(refused))
    print("Not exact, to be at least what the engine takes:")
    for error_mib, label in bounds:
        print(f"{error_mib:+9.2f}  {label}")
    if "--record" in sys.argv:
        lines = ",\n".join(json.dumps(record) for record in records)
        (_TESTS / "memory_oracle.json").write_text(f"[\n{lines}\n]\n")
    return int(any(row[0] > 1 for row in rows) or any(error_mib < 0 for error_mib, _label in bounds))


if __name__ == "__main__":
    raise SystemExit(main())
