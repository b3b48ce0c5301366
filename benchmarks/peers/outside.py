"""Engines in interpreters of their own: a small script is run there, and spoken to in lines of JSON.

For Python libraries those are bendi's own adapters (`bendi.engines.peer_outside`). A script of this folder is first
told the model (`model`, `config`, `threads`, `context_tok`) and says `{"ready": "name and version"}`; then, for each
`{"past": [...], "prompt": [...], "answer_tok": n}`, `{"pp_tok_s": ..., "tg_tok_s": ..., "computed_tok": ...}` (the last
one only where it is known). What it writes to stderr is shown when it fails.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from bendi.engines.peer_outside import MODULES, has_module, open_outside
from bendi.engines.peer_types import PeerEngine, PeerLoad, PeerSpec, PeerUsage
from bendi.errors import BendiError
from bendi.formats import TensorInfo, read_gguf
from bendi.formats.gguf_writer import BytewiseVocabulary, write_gguf
from bendi.messages import Chunk, GenerateRequest
from peers.contestants import Absent, Rates, Subject, Tokens, end, last_line

_HERE = Path(__file__).parent
_ANSWER_LIMIT_S = 600.0
_PIECE_BYTES = 1 << 22
_FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q4_K_S": 14, "Q4_K_M": 15, "Q6_K": 18}
"""Numbers of `general.file_type`: llama.cpp `include/llama.h`."""

PYTHON_PEERS = MODULES
"""Names of the libraries, and the modules that their interpreters need."""


class Outside:
    """An engine behind a script. `command`: what runs it."""

    def __init__(self, command: Sequence[str | Path], subject: Subject, model: Path, *, reads_file: bool) -> None:
        self.reads_file = reads_file
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, encoding="utf-8"
        )
        given = {
            "model": str(model),
            "config": dict(subject.config),
            "threads": subject.threads,
            "context_tok": subject.context_tok,
        }
        try:
            self.name = str(self._exchange(given)["ready"])
        except BaseException:
            self.close()
            raise

    def ask(self, past: Tokens, prompt: Tokens, answer_tok: int) -> Rates:
        answer = self._exchange({"past": past, "prompt": prompt, "answer_tok": answer_tok})
        return Rates(answer.get("pp_tok_s"), answer.get("tg_tok_s"), answer.get("computed_tok"))

    def close(self) -> None:
        end(self._process)

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        limit = threading.Timer(_ANSWER_LIMIT_S, self._process.kill)
        limit.start()
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                if line.startswith("{"):  # libraries greet, too
                    answer: dict[str, Any] = json.loads(line)
                    return answer
        except BrokenPipeError:
            pass
        finally:
            limit.cancel()
        self._process.wait(_ANSWER_LIMIT_S)
        raise Absent(f"it ended with {self._process.returncode}: {last_line(self._errors.fileno())}")


def node_peer(folder: Path, subject: Subject) -> Outside:
    """node-llama-cpp, as `npm install` put it into `folder`. Raises Absent."""
    node = shutil.which("node")
    if node is None:
        raise Absent("there is no node")
    return Outside([node, _HERE / "ask_node_llama_cpp.mjs", folder], subject, subject.path, reads_file=True)


class ThroughAdapter:
    """A library in an interpreter of its own, through bendi's adapter for it. What is held from question to question is
    computed in a request of its own first."""

    def __init__(self, engine: PeerEngine, *, reads_file: bool) -> None:
        self.name = f"{engine.info.engine} {engine.info.build}"
        self.reads_file = reads_file
        self._engine = engine
        self._held: Tokens = ()
        self._held_s = 0.0

    def ask(self, past: Tokens, prompt: Tokens, answer_tok: int) -> Rates:
        try:
            if past and past != self._held:
                self._held_s, self._held = self._answer(past, 1)[0], past
            first_s, last = self._answer(past + prompt, answer_tok)
        except BendiError as error:
            raise Absent(error.message) from error
        usage = cast(PeerUsage, last.usage)
        computed_tok: int | None = usage.prompt_tok - usage.cached_tok
        if not usage.cached_known:
            # A short prompt after a long past that took about as long as that past did was not all that was computed.
            again = 8 * len(prompt) < len(past) and 2 * first_s > self._held_s
            computed_tok = usage.prompt_tok if again else None
        assert last.timings
        tg_tok_s = last.timings.tg_tok_s if answer_tok > 1 else None
        return Rates(last.timings.pp_tok_s or len(prompt) / first_s, tg_tok_s, computed_tok)

    def close(self) -> None:
        self._engine.close()

    def _answer(self, prompt: Tokens, answer_tok: int) -> tuple[float, Chunk]:
        """Seconds to the first token, and the last chunk."""
        request = GenerateRequest(prompt=prompt, max_tokens=answer_tok, ignore_end=True)
        *_texts, last = self._engine.generate(request)
        assert last.timings and last.timings.ttft_s
        return last.timings.ttft_s, last


def python_peer(name: str, interpreters: Sequence[Path], subject: Subject, exported: Path | None) -> ThroughAdapter:
    """One of PYTHON_PEERS, in the first of the `interpreters` that has it. `exported`: a folder with the model as
    OpenVINO stores it. Raises Absent."""
    module = PYTHON_PEERS[name]
    python = next((path for path in interpreters if has_module(path, module)), None)
    if python is None:
        raise Absent(f"none of the interpreters has {module}")
    settings = {"threads": subject.threads}
    if name == "openvino":
        load = PeerLoad(exported or bytewise_copy(subject), settings=settings)
    else:
        load = PeerLoad(config=subject.config, settings=settings)
    try:
        engine = open_outside(PeerSpec(name, program=str(python)), load)
    except BendiError as error:
        raise Absent(error.message) from error
    return ThroughAdapter(engine, reads_file=name == "openvino" and exported is None)


def bytewise_copy(subject: Subject) -> Path:
    """The same weights with a vocabulary of the kind `gpt2`, all that OpenVINO's reader knows. Raises Absent."""
    path = subject.path.with_name("bytewise.gguf")
    if subject.file_type not in _FILE_TYPES:
        raise Absent(f"it is not asked to read {subject.file_type}")
    if not path.exists():
        known = subject.blueprint.full_metadata() | BytewiseVocabulary(subject.blueprint.vocab).metadata()
        metadata = known | {"general.file_type": _FILE_TYPES[subject.file_type]}
        header = read_gguf(subject.path)
        with subject.path.open("rb") as file:

            def contents(tensor: TensorInfo) -> Iterator[bytes]:
                file.seek(header.data_offset + tensor.offset)
                left_bytes = tensor.size_bytes
                while left_bytes > 0:
                    yield file.read(min(_PIECE_BYTES, left_bytes))
                    left_bytes -= _PIECE_BYTES

            write_gguf(path, metadata, header.tensors, contents)
    return path
