"""What reading costs at worst: files crafted to take as much time and memory as the limits of the readers allow.

    python tests/formats/hostile_limits.py CASE PATH

reads the one that lies at PATH and prints seconds, the bytes by which the process grew at its peak, and the outcome.
The memory is that of the process as the system counts it, not of Python's objects alone: allocators keep more than
they are asked for, and that is what fills a machine. Each case needs a process of its own, because memory that the
one before has freed would hide the growth.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gguf_bytes import ARRAY, BOOL, F32, I32, STRING, U8, U32, Arr, Gguf, Tensor, llama, text

from bendi.errors import BendiError
from bendi.formats import anatomy, model_info, model_info_from_config, read_gguf_split, read_safetensors
from bendi.formats.hf_config import parse_json
from bendi.formats.hf_model import CONFIG, INDEX, WEIGHTS, read_hf_folder
from bendi.formats.json_scan import MAX_TEXT_BYTES
from bendi.formats.safetensors import MAX_HEADER_BYTES, MAX_INDEX_BYTES, read_index
from bendi.formats.source import FileSource
from bendi.hardware.sysfs import cpu_list, each_line, read_fields, read_text
from bendi.store.discover import read_manifest
from bendi.store.journal import read_journal
from bendi.store.record import RECORD_NAME, read_record
from bendi.units import MIB

LIMIT_BYTES = 64 * MIB
LIMIT_S = 2.0


@dataclass(frozen=True)
class Cost:
    """What one reading took. `outcome`: `read`, or the name and the message of the error."""

    seconds: float
    peak_bytes: int
    outcome: str


@dataclass(frozen=True)
class Case:
    """`write` makes the file or folder at a path; `read` is what bendi does with it."""

    write: Callable[[Path], None]
    read: Callable[[Path], object]


def measured(case: str, path: Path) -> Cost:
    """Reads `path` in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, case, str(path)], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        raise AssertionError(f"{case}: the reader died with {done.returncode}: {done.stderr[-2000:]}")
    return Cost(**json.loads(done.stdout))


# --- the readers -----------------------------------------------------------------------------------------------------


def _gguf(path: Path) -> None:
    headers = read_gguf_split(path)
    model_info(*headers)
    anatomy(*headers)


def _safetensors(path: Path) -> None:
    with FileSource(path) as source:
        read_safetensors(source, path.name)


def _index(path: Path) -> None:
    with FileSource(path) as source:
        read_index(source, path.name)


def _config(path: Path) -> None:
    with FileSource(path) as source:
        model_info_from_config(parse_json(source, path.name))


def _fields(path: Path) -> None:
    read_fields(path)
    sum(len(line) for line in each_line(read_text(path)))


# --- safetensors -----------------------------------------------------------------------------------------------------


def _safetensors_file(path: Path, entries: Iterator[str], metadata: str = "") -> None:
    """A header of the largest length allowed, as full of `entries` as it gets."""
    pieces, room = [metadata] if metadata else [], MAX_HEADER_BYTES - len(metadata.encode()) - 16
    for entry in entries:
        room -= len(entry.encode()) + 1
        if room < 0:
            break
        pieces.append(entry)
    header = ("{" + ",".join(pieces) + "}").encode()
    header += b" " * (MAX_HEADER_BYTES - len(header))
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def _small_entries(name: str = "", shape: str = "0", more: str = "") -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f'"{name}{number:x}":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,0]{more}}}'


def _different_shapes() -> Iterator[str]:
    for number, entry in enumerate(_small_entries(shape="@")):
        yield entry.replace("@", ",".join([str(2**40 + number)] * 15) + ",0")


def _shuffled() -> Iterator[str]:
    """Sound tensors of one byte, the last one first: sorting and every check of the layout have their work."""
    for number in range(500_000, 0, -1):
        yield f'"{number:x}":{{"dtype":"U8","shape":[1],"data_offsets":[{number - 1},{number}]}}'


def _turned(entry: str) -> str:
    """The same with the place first, which no usual writer does."""
    head, place = entry[:-1].split(',"data_offsets":')
    name, _brace, rest = head.partition(":{")
    return f'{name}:{{"data_offsets":{place},{rest}}}'


def _metadata(value: str, count: int = 1) -> str:
    return '"__metadata__":{' + ",".join(f'"{number}":"{value}"' for number in range(count)) + "}"


def _index_file(path: Path, name: str = "", file: str = "a.safetensors") -> None:
    pieces, room, number = [], MAX_INDEX_BYTES - 32, 0
    while room > 0:
        number += 1
        pieces.append(f'"{name}{number:x}":"{file}"')
        room -= len(pieces[-1].encode()) + 1
    path.write_bytes(('{"weight_map":{' + ",".join(pieces[:-1]) + "}}").encode())


def _folder(path: Path) -> None:
    """A model in many files, each of them as full as one may be."""
    path.mkdir()
    (path / CONFIG).write_text('{"model_type":"llama","num_hidden_layers":2,"hidden_size":8}')
    names = [f"{part}.safetensors" for part in range(16)]
    weight_map: dict[str, str] = {}
    for part, name in enumerate(names):
        made = {
            f"model.layers.{part}.experts.{n}.{'x' * 30}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
            for n in range(16_000)
        }
        weight_map.update(dict.fromkeys(made, name))
        header = json.dumps(made).encode()
        (path / name).write_bytes(struct.pack("<Q", len(header)) + header)
    (path / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def _single(path: Path) -> None:
    path.mkdir()
    (path / CONFIG).write_text('{"model_type":"llama","num_hidden_layers":2,"hidden_size":8}')
    _safetensors_file(path / WEIGHTS, _shuffled())


# --- texts -----------------------------------------------------------------------------------------------------------


def _filled(size_bytes: int, piece: str, begin: str = '{"a":[', end: str = "0]}") -> Callable[[Path], None]:
    """JSON text of that size, of a repeated piece. `@` in it becomes a number."""

    def write(path: Path) -> None:
        count = size_bytes // len(piece.encode())
        body = "".join(piece.replace("@", f"{n:x}") for n in range(count)) if "@" in piece else piece * count
        raw = body.encode()[: size_bytes - len(begin.encode()) - len(end)]
        raw = raw[: raw.rfind(piece[-1].encode()) + 1]
        path.write_bytes(begin.encode() + raw + end.encode())

    return write


def _most(path: Path) -> None:
    """As many values as are allowed, all different, in as much text as is allowed, which is wide."""
    objects = ",".join(f'{{"{n:x}":"{n:x}"}}' for n in range(49_900))
    texts = ",".join(f'"{n:x}x"' for n in range(199_000))
    body = f'{{"a":["\U00020000",{objects},{texts}],"b":"'.encode()
    path.write_bytes(body + b"x" * (MAX_TEXT_BYTES - len(body) - 2) + b'"}')


def _texts(piece: str, begin: str = '{"a":[', end: str = "0]}") -> Case:
    return Case(_filled(MAX_TEXT_BYTES, piece, begin, end), _config)


# --- GGUF ------------------------------------------------------------------------------------------------------------


def _written(made: Callable[[], Gguf]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(made().build()) and None


def _repeated_tokens(size: int, count: int = 2**19, tail: bytes = b"", twice: bool = True) -> Callable[[Path], None]:
    """A vocabulary of tokens that differ, of that many bytes each, but for the last two where one is there `twice`."""

    def write(path: Path) -> None:
        base = llama(8).without("tokenizer.ggml.scores").without("tokenizer.ggml.token_type")
        base = base.without("tokenizer.ggml.tokens").with_tensors()
        lengths = struct.pack("<Q", size)
        with path.open("wb") as file:
            file.write(base._with(key_count=len(base.keys) + 1).header())
            file.write(text("tokenizer.ggml.tokens") + struct.pack("<IIQ", ARRAY, STRING, count))
            for first in range(0, count, 4096):
                numbers = range(first, min(first + 4096, count))
                file.write(b"".join(lengths + b"%0*x" % (size, min(n, count - 1 - twice)) for n in numbers))
            file.write(tail)

    return write


def _many_strings() -> Gguf:
    """As many strings as are walked over, in arrays that are not kept."""
    made = llama(8).with_tensors()
    return made.add("x", ARRAY, Arr(STRING, ["a"] * 3_990_000))


def _many_keys() -> Gguf:
    made = llama(8).with_tensors()
    keys = [(f"{number:x}".rjust(400, "k"), (BOOL, True)) for number in range(8100)]
    return made._with(keys=[*made.keys, *keys])


def _many_arrays() -> Gguf:
    made = llama(8).with_tensors()
    keys = [(f"{number}", (ARRAY, Arr(10, [2**63 + number] * 8))) for number in range(8100)]
    return made._with(keys=[*made.keys, *keys])


def _many_tensors() -> Gguf:
    made = llama(8)
    tensors = [Tensor(f"{number:x}".rjust(63, "t"), (1, 1, 1, 32)) for number in range(32768)]
    return made.with_tensors(*reversed(tensors))


def _nested() -> Gguf:
    return llama(8).add("x", ARRAY, Arr(ARRAY, [])).with_tensors()


def _giant_strings(path: Path) -> None:
    """Strings of the longest length, in a file with holes: it takes no room, and reading it does."""
    path.write_bytes(llama(8).with_tensors()._with(key_count=21).header())
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(text("x") + struct.pack("<IIQ", ARRAY, STRING, 2000))
        for _number in range(2000):
            file.write(struct.pack("<Q", 2**20 - 8))
            file.seek(2**20 - 8, os.SEEK_CUR)
        file.truncate()


def _giant_array(path: Path) -> None:
    path.write_bytes(llama(8).with_tensors()._with(key_count=21).header())
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(text("x") + struct.pack("<IIQ", ARRAY, U8, 2**40))
        file.truncate(2**40 + 2**20)


def _parts(path: Path) -> None:
    """Parts, each with a vocabulary of its own, as long as all of them may be together."""
    tokens = 2**19
    for part in range(16):
        made = llama(8).with_tensors().without("tokenizer.ggml.scores").without("tokenizer.ggml.token_type")
        made = made.set("split.no", U32, part).set("split.count", U32, 16).set("split.tensors.count", I32, 0)
        made = made.set("tokenizer.ggml.tokens", ARRAY, Arr(STRING, [f"{part}{number:x}" for number in range(tokens)]))
        path.with_name(f"m-{part + 1:05}-of-00016.gguf").write_bytes(made.build())


def _many_parts(path: Path, count: int = 1024) -> None:
    for part in range(count):
        made = llama(8).with_tensors().without("tokenizer.ggml.scores").without("tokenizer.ggml.token_type")
        made = made.set("split.no", U32, part).set("split.count", U32, count)
        made = made.add("pad", ARRAY, Arr(F32, [0.0] * 100))
        made = made.with_tensors(Tensor(f"t{part}"))
        path.with_name(f"m-{part + 1:05}-of-{count:05}.gguf").write_bytes(made.build())


def _first_part(number: int) -> Callable[[Path], object]:
    return lambda path: _gguf(path.with_name(f"m-00001-of-{number:05}.gguf"))


CASES: dict[str, Case] = {
    "safetensors: as many tensors as fit": Case(lambda path: _safetensors_file(path, _shuffled()), _safetensors),
    "safetensors: empty tensors": Case(lambda path: _safetensors_file(path, _small_entries()), _safetensors),
    "safetensors: an unusual order": Case(
        lambda path: _safetensors_file(path, (_turned(entry) for entry in _shuffled())), _safetensors
    ),
    "safetensors: long names": Case(lambda path: _safetensors_file(path, _small_entries("n" * 1000)), _safetensors),
    "safetensors: names of wide characters": Case(
        lambda path: _safetensors_file(path, _small_entries("\U00020000" * 200)), _safetensors
    ),
    "safetensors: all shapes different": Case(lambda path: _safetensors_file(path, _different_shapes()), _safetensors),
    "safetensors: entries of lists": Case(
        lambda path: _safetensors_file(path, _small_entries(more=',"x":[' + "[]," * 1200 + "[]]")), _safetensors
    ),
    "safetensors: entries of objects": Case(
        lambda path: _safetensors_file(path, _small_entries(more=',"x":[' + '{"":0},' * 500 + "0]")), _safetensors
    ),
    "safetensors: long metadata": Case(
        lambda path: _safetensors_file(path, _small_entries(), _metadata("\U00020000" + "m" * 1_000_000)), _safetensors
    ),
    "safetensors: much metadata": Case(
        lambda path: _safetensors_file(path, iter(()), _metadata("\U00020000" + "m" * 4000, 4096)), _safetensors
    ),
    "safetensors: blanks": Case(lambda path: _safetensors_file(path, iter(())), _safetensors),
    "safetensors: one endless text": Case(
        lambda path: _safetensors_file(path, iter(['"' + "\U00020000" * (MAX_HEADER_BYTES // 4 - 100)])), _safetensors
    ),
    "safetensors: a model in many files": Case(_folder, read_hf_folder),
    "safetensors: a model in one file": Case(_single, read_hf_folder),
    "index: short names": Case(_index_file, _index),
    "index: names as in models": Case(lambda path: _index_file(path, "model.layers.60.mlp.experts." * 2), _index),
    "index: wide characters": Case(lambda path: _index_file(path, "\U00020000" * 100), _index),
    "index: many files": Case(lambda path: _index_file(path, "", "f" * 200 + ".safetensors"), _index),
    "config: all that is allowed": Case(_most, _config),
    "config: numbers": _texts("123,"),
    "config: fractions": _texts("1e9,"),
    "config: texts": _texts('"ab",'),
    "config: texts, wide": _texts('"ab",', '{"a":["\U00020000",'),
    "config: wide characters": _texts('"\U00020000b",'),
    "config: one wide text": _texts("x", '{"a":"\U00020000', '"}'),
    "config: objects": _texts('{"a":0},'),
    "config: objects, all names different": _texts('{"@":"ab"},', '{"\U00020000":["\U00020000",'),
    "config: lists": _texts("[[]],"),
    "config: names": _texts('"@":0,', "{", '"":0}'),
    "config: depth": _texts("[", '{"a":', ""),
    "config: depth of objects": _texts('{"a":', "", ""),
    "config: a long number": _texts("9", '{"a":', "}"),
    "config: escapes": _texts("\\u4e2d", '{"a":"', '"}'),
    "record: objects": Case(lambda path: _filled(8 * MIB, '{"a":0},')(_made(path) / RECORD_NAME), read_record),
    "record: a long text": Case(lambda path: _filled(80 * MIB, "x", '"', '"')(_made(path) / RECORD_NAME), read_record),
    "journal: pieces": Case(_filled(8 * MIB, "[1,2],", '{"format":1,"identity":{},"done":[', "[1,2]]}"), read_journal),
    "journal: depth": Case(_filled(2 * MIB, "[", "", ""), read_journal),
    "manifest: layers": Case(_filled(8 * MIB, '{"a":0},', '{"layers":[', "{}]}"), read_manifest),
    "hardware: lines": Case(_filled(16 * MIB, "ab 1\n", "", ""), _fields),
    "hardware: fields": Case(_filled(16 * MIB, "@ 1\n", "", ""), _fields),
    "hardware: a list of CPUs": Case(_filled(8 * MIB, "0-65535,", "", ""), lambda path: cpu_list(read_text(path))),
    "gguf: many keys": Case(_written(_many_keys), _gguf),
    "gguf: many arrays": Case(_written(_many_arrays), _gguf),
    "gguf: many tensors": Case(_written(_many_tensors), _gguf),
    "gguf: many strings": Case(_written(_many_strings), _gguf),
    "gguf: an array of arrays": Case(_written(_nested), _gguf),
    "gguf: a vocabulary": Case(_repeated_tokens(6), _gguf),
    "gguf: a vocabulary of long tokens": Case(_repeated_tokens(160), _gguf),
    "gguf: strings in holes": Case(_giant_strings, _gguf),
    "gguf: an array in a hole": Case(_giant_array, _gguf),
    "gguf: parts with vocabularies": Case(_parts, _first_part(16)),
    "gguf: a thousand parts": Case(_many_parts, _first_part(1024)),
}


def _made(path: Path) -> Path:
    path.mkdir()
    return path


# --- one reading, measured -------------------------------------------------------------------------------------------


def _peak_bytes() -> int:
    """The largest memory of this process so far. On Linux, the one since its start, without that of its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.open() if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    case, path = CASES[sys.argv[1]], Path(sys.argv[2])
    before_bytes, started_s = _peak_bytes(), time.perf_counter()
    try:
        case.read(path)
        outcome = "read"
    except BendiError as error:
        outcome = f"{type(error).__name__}: {error.message}"
    seconds = time.perf_counter() - started_s
    print(json.dumps({"seconds": seconds, "peak_bytes": _peak_bytes() - before_bytes, "outcome": outcome}))


if __name__ == "__main__":
    main()
