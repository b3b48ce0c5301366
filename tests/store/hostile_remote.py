"""What reading from afar costs at worst: the files of `hostile_limits`, and worse ones, served over HTTP.

    python tests/store/hostile_remote.py CASE URL CACHE

reads what the server at URL has and prints seconds of CPU, the bytes by which the process grew at its peak, and the
outcome. The server is another process, whose memory does not count. A sound little model is read first: the libraries
for HTTP take the same whatever the bytes are.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "formats"))

import hostile_limits
from hostile_limits import CASES as LOCAL_CASES
from hostile_limits import Cost
from servers import COMMIT, LoopbackServer
from tiny import gguf

from bendi.errors import BendiError
from bendi.formats.hf_model import CONFIG, INDEX, WEIGHTS
from bendi.formats.safetensors import MAX_HEADER_BYTES
from bendi.settings import Settings
from bendi.store.names import RepoName, UrlName, parse_name
from bendi.store.remote_header import read_remote_model
from bendi.store.remote_safetensors import read_remote_safetensors
from bendi.units import KIB

_SMALL_CONFIG = '{"model_type":"llama","num_hidden_layers":2,"hidden_size":8}'
REPO = "hf:org/A"


@dataclass(frozen=True)
class RemoteCase:
    """`write` makes files in a folder. `name`: what is asked for, with `{url}`. `crumbs`: the server sends its answers
    byte by byte; `no_ranges`: it sends whole files; `unnamed`: nothing identifies a version, so nothing is kept."""

    write: Callable[[Path], None]
    name: str = "{url}/files/x.gguf"
    crumbs: bool = False
    no_ranges: bool = False
    unnamed: bool = False


class FolderServer(LoopbackServer):
    """The files of `folder`: those of a repository of the hub, and by their plain address below `/files/`."""

    def __init__(self, folder: Path, case: RemoteCase) -> None:
        self.folder, self.case = folder, case
        super().__init__()

    def route(self, request: Any, path: str, query: Mapping[str, list[str]]) -> None:
        if path == "/warm.gguf":
            request.answer(200, gguf(1000))
        elif "/revision/" in path:
            request.answer_json({"sha": COMMIT})
        elif "/tree/" in path:
            request.answer_json([])
        else:
            self._send(request, self.folder / path.rpartition("/")[2])

    def _send(self, request: Any, file: Path) -> None:
        if not file.is_file():
            request.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        size = file.stat().st_size
        asked = request.headers.get("Range", "")
        start, end = 0, size
        if asked and not self.case.no_ranges:
            first, _dash, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1, size)
        request.send_response(200 if (start, end) == (0, size) and (self.case.no_ranges or not asked) else 206)
        request.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        if not self.case.unnamed:
            request.send_header("ETag", '"one"')
        if self.case.crumbs:
            request.send_header("Transfer-Encoding", "chunked")
        else:
            request.send_header("Content-Length", str(end - start))
        request.end_headers()
        with file.open("rb") as source:
            source.seek(start)
            while start < end and (piece := source.read(min(end - start, 64 * KIB))):
                start += len(piece)
                self.body_bytes += len(piece)
                if self.case.crumbs:
                    piece = b"".join(b"1\r\n%c\r\n" % byte for byte in piece)
                request.wfile.write(piece)
        if self.case.crumbs:
            request.wfile.write(b"0\r\n\r\n")


def measured(name: str, folder: Path, cache: Path) -> tuple[Cost, int]:
    """Reads the case `name`, which lies in `folder`, in a process of its own. What it cost, and the bytes sent."""
    with FolderServer(folder, CASES[name]) as server:
        done = subprocess.run(
            [sys.executable, __file__, name, server.url, str(cache)],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        if done.returncode:
            raise AssertionError(f"{name}: the reader died with {done.returncode}: {done.stderr[-2000:]}")
        return Cost(**json.loads(done.stdout)), server.body_bytes


# --- the files -------------------------------------------------------------------------------------------------------


def _single(local: str) -> RemoteCase:
    return RemoteCase(lambda folder: LOCAL_CASES[local].write(folder / "x.gguf"))


def _weights(local: str) -> RemoteCase:
    def write(folder: Path) -> None:
        (folder / CONFIG).write_text(_SMALL_CONFIG)
        LOCAL_CASES[local].write(folder / WEIGHTS)

    return RemoteCase(write, REPO)


def _long_tokens(size: int, twice: bool = True) -> Callable[[Path], None]:
    return lambda folder: hostile_limits._repeated_tokens(size, twice=twice)(folder / "x.gguf")


def _folder(folder: Path) -> None:
    made = folder / "made"
    LOCAL_CASES["safetensors: a model in many files"].write(made)
    for file in made.iterdir():
        file.rename(folder / file.name)


def _full_headers(count: int) -> Callable[[Path], None]:
    """As many files with the longest header: all of them are brought before one is read."""

    def write(folder: Path) -> None:
        (folder / CONFIG).write_text(_SMALL_CONFIG)
        names = [f"{part}.safetensors" for part in range(count)]
        (folder / INDEX).write_text(json.dumps({"weight_map": {f"t{part}": name for part, name in enumerate(names)}}))
        for part, name in enumerate(names):
            body = b'{"t%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % part
            body += b" " * (MAX_HEADER_BYTES - len(body) - 1) + b"}"
            (folder / name).write_bytes(struct.pack("<Q", len(body)) + body)

    return write


def _index(folder: Path) -> None:
    (folder / CONFIG).write_text(_SMALL_CONFIG)
    hostile_limits._index_file(folder / INDEX, "model.layers.60.mlp.experts." * 2)


def _config(folder: Path) -> None:
    hostile_limits._most(folder / CONFIG)


CASES: dict[str, RemoteCase] = {
    **{f"remote {name}": _single(name) for name in LOCAL_CASES if name.startswith("gguf:") and "parts" not in name},
    "remote gguf: a vocabulary as long as may be received": RemoteCase(_long_tokens(105)),
    "remote gguf: the same with all tokens different": RemoteCase(_long_tokens(105, twice=False)),
    "remote gguf: the same without a version": RemoteCase(_long_tokens(105), unnamed=True),
    "remote gguf: the same without ranges": RemoteCase(_long_tokens(105), no_ranges=True),
    "remote gguf: a vocabulary in crumbs": RemoteCase(_long_tokens(6), crumbs=True),
    "remote gguf: in crumbs without ranges": RemoteCase(_long_tokens(6), crumbs=True, no_ranges=True),
    "remote gguf: parts with vocabularies": RemoteCase(
        lambda folder: LOCAL_CASES["gguf: parts with vocabularies"].write(folder / "x"),
        "{url}/files/m-00001-of-00016.gguf",
    ),
    "remote gguf: a thousand parts": RemoteCase(
        lambda folder: hostile_limits._many_parts(folder / "x", 1000), "{url}/files/m-00001-of-01000.gguf"
    ),
    **{
        f"remote {name}": _weights(name)
        for name in LOCAL_CASES
        if name.startswith("safetensors:") and " in " not in name
    },
    "remote safetensors: a model in many files": RemoteCase(_folder, REPO),
    "remote safetensors: the longest headers at once": RemoteCase(_full_headers(3), REPO),
    "remote safetensors: more than may be received": RemoteCase(_full_headers(5), REPO),
    "remote index: names as in models": RemoteCase(_index, REPO),
    "remote config: all that is allowed": RemoteCase(_config, REPO),
}  # fmt: skip


# --- one reading, measured -------------------------------------------------------------------------------------------


def _settings(url: str, cache: Path) -> Settings:
    return Settings(
        models_dirs=(cache / "models",), state_dir=cache / "state", cache_dir=cache, config_dir=cache / "config",
        hf_endpoint=url, ms_endpoint=url, ollama_registry=url, hf_cache_dir=cache / "hub",
        ollama_models_dir=cache / "ollama", lmstudio_models_dir=cache / "lmstudio",
    )  # fmt: skip


def main() -> None:
    case, url, cache = CASES[sys.argv[1]], sys.argv[2], Path(sys.argv[3])
    settings = _settings(url, cache)
    warm = parse_name(f"{url}/warm.gguf")
    name = parse_name(case.name.format(url=url))
    assert isinstance(warm, UrlName)
    assert isinstance(name, UrlName | RepoName)
    read_remote_model(warm, settings)
    before_bytes, started_s = hostile_limits._peak_bytes(), time.process_time()
    try:
        if isinstance(name, UrlName):
            read_remote_model(name, settings)
        else:
            read_remote_safetensors(name, settings)
        outcome = "read"
    except BendiError as error:
        outcome = f"{type(error).__name__}: {error.message}"
    seconds = time.process_time() - started_s
    peak_bytes = hostile_limits._peak_bytes() - before_bytes
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes, "outcome": outcome}))


if __name__ == "__main__":
    main()
