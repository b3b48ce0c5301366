"""Compares bendi's mixtures with llama.cpp's own choice, by compiling that part of llama.cpp.

    scripts/fetch-oracle
    python tools/mixture_oracle.py --record        # writes tests/planner/mixtures.json
    python tools/mixture_oracle.py --compare 60    # a minute of random models; fails on any difference

Needs g++ and the package that scripts/fetch-oracle fetches. Compiling takes about 20 seconds. To do after every change
of the pinned version, together with a look at the tables of src/bendi/planner/mixture_rules.py.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from bendi.errors import BendiError
from bendi.formats.quant_types import FILE_TYPES as FILE_TYPE_NAMES
from bendi.planner.mixture import MixtureFacts, TensorShape, needs_imatrix, quantized_types
from bendi.planner.mixture_rules import FILE_TYPES, NEVER_QUANTIZED_PARTS, NEVER_QUANTIZED_PARTS_OF

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / ".cache" / "llama-cpp-python-0.3.36.tar.gz"
RECORD = ROOT / "tests" / "planner" / "mixtures.json"
FILE_TYPE_IDS = {name: number for number, name in FILE_TYPE_NAMES.items()}
SOURCES = (
    "ggml/src/ggml.c",
    "ggml/src/ggml-quants.c",
    "ggml/src/ggml.cpp",
    "ggml/src/ggml-threading.cpp",
    "src/llama-arch.cpp",
    "src/llama-hparams.cpp",
    "src/llama-impl.cpp",
)
Shapes = dict[str, tuple[int, ...]]
Model = tuple[MixtureFacts, list[TensorShape]]


def build(folder: Path) -> Path:
    """The compiled oracle, in `folder`."""
    with tarfile.open(PACKAGE) as package:
        wanted = [
            member for member in package if any(part in member.name for part in ("/src/", "/include/", "/common/"))
        ]
        package.extractall(folder, wanted, filter="data")
    root = next(folder.glob("*/vendor/llama.cpp"))
    # The build system would make these two.
    (folder / "ggml-version.h").write_text('#define GGML_VERSION ""\n#define GGML_COMMIT ""\n')
    (folder / "llama-version.h").write_text('#define LLAMA_VERSION ""\n')
    parts = ("src", "include", "ggml/include", "ggml/src", "common")
    flags = ["-w", "-O1", "-D_GNU_SOURCE", "-ffunction-sections", "-fdata-sections", f"-I{folder}"]
    flags += [f"-I{root / part}" for part in parts]
    objects = []
    for source in (Path(__file__).with_suffix(".cpp"), *(root / source for source in SOURCES)):
        objects.append(folder / f"{source.name}.o")
        compiler = ["gcc", "-std=gnu11"] if source.suffix == ".c" else ["g++", "-std=c++17"]
        subprocess.run([*compiler, *flags, "-c", source, "-o", objects[-1]], check=True)
    program = folder / "oracle"
    # What the functions we call do not reach is dropped, so the rest of llama.cpp need not exist.
    subprocess.run(["g++", *objects, "-Wl,--gc-sections", "-pthread", "-o", program], check=True)
    return program


class Oracle:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, model: Model) -> Iterator[tuple[str, bool, list[str] | None, bool]]:
        """File type, importance matrix, types (None: llama.cpp gives up) and need of one, for all of them."""
        facts, tensors = model
        questions = [(file_type, imatrix) for file_type in FILE_TYPES for imatrix in (False, True)]
        head = (facts.block_count, facts.head_count, facts.head_count_kv, facts.expert_count, int(facts.is_70b))
        lines = [" ".join(("model", facts.architecture, *map(str, head)))]
        lines += [" ".join(("tensor", t.name, *map(str, (*t.shape, 1, 1, 1)[:4]))) for t in tensors]
        lines += [f"ask {FILE_TYPE_IDS[file_type]} {int(imatrix)}" for file_type, imatrix in questions]
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\n".join(lines) + "\n")
        self._process.stdin.flush()
        for file_type, imatrix in questions:
            needs, *types = self._process.stdout.readline().upper().split()
            yield file_type, imatrix, types if needs != "ERROR" else None, needs == "1"


@contextmanager
def oracle() -> Iterator[Oracle]:
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield Oracle(process)


def model(facts: MixtureFacts, top: Shapes, per_layer: Shapes) -> Model:
    """Tensors by name, then by layer, so that equal types stand together."""
    tensors = [TensorShape(name, shape, "I8") for name, shape in top.items()]
    for name, shape in per_layer.items():
        tensors += [TensorShape(f"blk.{layer}.{name}", shape, "I8") for layer in range(facts.block_count)]
    return facts, tensors


def ends(embd: int, vocab: int) -> Shapes:
    return {"token_embd.weight": (embd, vocab), "output_norm.weight": (embd,), "output.weight": (embd, vocab)}


def block(embd: int, kv: int, ff: int) -> Shapes:
    return {
        "attn_norm.weight": (embd,),
        "attn_q.weight": (embd, embd),
        "attn_k.weight": (embd, kv),
        "attn_v.weight": (embd, kv),
        "attn_v.bias": (kv,),
        "attn_output.weight": (embd, embd),
        "ffn_gate.weight": (embd, ff),
        "ffn_up.weight": (embd, ff),
        "ffn_down.weight": (ff, embd),
    }


def stacked(shapes: Shapes, experts: int) -> Shapes:
    """The same block with stacks of experts for its feed-forward tensors."""
    plain = {name: shape for name, shape in shapes.items() if "ffn" not in name}
    stacks = {
        name.replace(".", "_exps."): (*shape, experts) for name, shape in shapes.items() if name.startswith("ffn")
    }
    return {**plain, "ffn_gate_inp.weight": (shapes["ffn_up.weight"][0], experts), **stacks}


def recorded_models() -> dict[str, Model]:
    """What llama.cpp's own snapshots do not cover: architectures with rules of their own, few experts, odd rows."""
    fused: Shapes = {"attn_qkv.weight": (8192, 9216), "attn_output.weight": (8192, 8192)}
    mlp: Shapes = {"ffn_up.weight": (8192, 32768), "ffn_down.weight": (32768, 8192)}
    mla: Shapes = {
        "attn_q_a.weight": (2048, 768),
        "attn_q_b.weight": (768, 4096),
        "attn_kv_a_mqa.weight": (2048, 576),
        "attn_kv_b.weight": (512, 4096),
        "attn_k_b.weight": (192, 512, 16),
        "attn_v_b.weight": (512, 256, 16),
        "indexer.attn_k.weight": (2048, 128),
        "nextn.eh_proj.weight": (4096, 2048),
        "ssm_beta.weight": (2048, 32),
    }
    odd: Shapes = {
        "ssm_in.weight": (96, 512),
        "attn_v.weight": (64, 100),
        "ffn_down.weight": (100, 96),
        "ffn_up.weight": (128, 96),
    }
    return {
        "falcon-40b": model(MixtureFacts("falcon", 60, 128, 8), ends(8192, 65024), fused | mlp),
        "mixtral-8x7b": model(
            MixtureFacts("llama", 32, 32, 8, 8), ends(4096, 32000), stacked(block(4096, 1024, 14336), 8)
        ),
        "qwen2.5-72b": model(MixtureFacts("qwen2", 80, 64, 8), ends(8192, 152064), block(8192, 1024, 29568)),
        "qwen2.5-0.5b": model(
            MixtureFacts("qwen2", 24, 14, 2), {"token_embd.weight": (896, 151936)}, block(896, 128, 4864)
        ),
        "four-experts": model(
            MixtureFacts("llama", 24, 16, 16, 4), ends(2048, 32000), stacked(block(2048, 2048, 5632), 4)
        ),
        "plain-heads": model(MixtureFacts("llama", 32, 32, 32), ends(4096, 32000), block(4096, 4096, 11008)),
        "glm5-next": model(
            MixtureFacts("glm5-next", 16, 16, 16, 64), ends(2048, 151552), mla | stacked(block(2048, 512, 1536), 64)
        ),
        "bailingmoe3": model(
            MixtureFacts("bailingmoe3", 16, 16, 4, 64), ends(2048, 157184), mla | stacked(block(2048, 512, 1536), 64)
        ),
        "odd-rows": model(MixtureFacts("llama", 16, 4, 2), ends(160, 1000), odd),
    }  # fmt: skip


def written(shape: tuple[int, ...]) -> str:
    return " ".join(map(str, shape))


def packed(types: Sequence[str]) -> str:
    return " ".join(f"{name}*{len(list(same))}" for name, same in groupby(types))


def record(asked: Oracle) -> None:
    recorded = {}
    for name, (facts, tensors) in recorded_models().items():
        answers: dict[str, str] = {}
        needing = []
        for file_type, imatrix, types, needs in asked.ask((facts, tensors)):
            answer = packed(types) if types is not None else "error"
            if not imatrix:
                answers[file_type] = answer
                needing += [file_type] if needs else []
            elif answer != answers[file_type]:
                answers[f"{file_type} imatrix"] = answer
        recorded[name] = {
            "facts": {field: getattr(facts, field) for field in facts.__slots__},
            "tensors": {t.name: written(t.shape) for t in tensors if not t.name.startswith("blk.")},
            "layer_tensors": {
                t.name[len("blk.0.") :]: written(t.shape) for t in tensors if t.name.startswith("blk.0.")
            },
            "needs_imatrix": " ".join(needing),
            "types": answers,
        }
    RECORD.write_text(json.dumps(recorded, indent=1) + "\n")


def random_model(choose: random.Random) -> Model:
    architecture = choose.choice(
        ["llama", "falcon", "glm5-next", "bailingmoe3", "qwen2", "olmo", "deci", "jais2", "mamba"]
    )
    heads_kv = choose.choice([0, 1, 2, 8])
    experts = choose.choice([0, 0, 1, 2, 4, 8, 8, 16])
    layers = choose.choice([1, 2, 7, 8, 16, 17, 24, 33, 68, 80])
    facts = MixtureFacts(architecture, layers, heads_kv * choose.choice([1, 2, 3, 4, 8]) or 8, heads_kv, experts)
    names = "attn_q attn_k attn_v attn_qkv attn_kv_b attn_output ffn_up ffn_gate ffn_down ffn_up_exps ffn_gate_exps"
    names += (
        " ffn_down_exps ffn_gate_up_exps ffn_down_shexp attn_q_a attn_q_b attn_gate cross_attn_v nextn.eh_proj ssm_in"
    )
    never = [part for parts in (NEVER_QUANTIZED_PARTS, *NEVER_QUANTIZED_PARTS_OF.values()) for part in parts]
    suffixes = [f"{name}.{choose.choice(['weight'] * 6 + ['bias'])}" for name in choose.sample(names.split(), 10)]
    suffixes += [f"{part.strip('.').removesuffix('.weight')}.weight" for part in choose.sample(never, 2)]
    top = ["token_embd.weight", "output.weight", "per_layer_token_embd.weight", "position_embd.weight", "cls.weight"]
    columns = choose.choice([256, 512, 2816, 4096, 4096, 96, 128, 160, 2688])

    def shape() -> tuple[int, ...]:
        return (
            choose.choice([columns] * 3 + [256, 1856, 128, 64, 32, 8]),
            choose.choice([1, 3, 128]),
            choose.choice([1, 1, 4]),
        )

    per_layer = {name: shape() for name in suffixes}
    _facts, tensors = model(facts, {name: shape() for name in choose.sample(top, 3)}, per_layer)
    kept = [tensor for tensor in tensors if choose.random() < 0.97]
    choose.shuffle(kept)
    return facts, kept


def differences(asked: Oracle, one: Model) -> Iterator[str]:
    facts, tensors = one
    for file_type, imatrix, types, needs in asked.ask(one):
        try:
            ours: list[str] | None = quantized_types(tensors, facts, file_type, imatrix=imatrix)
            our_needs = needs_imatrix(tensors, facts, file_type)
        except BendiError:
            ours, our_needs = None, False
        if ours != types or (not imatrix and our_needs != needs):
            yield f"{file_type} imatrix={imatrix} {facts}: llama.cpp {types}, needs {needs}; bendi {ours}, {our_needs}"


def compare(asked: Oracle, seconds: float, seed: int) -> bool:
    choose = random.Random(seed)
    end_s = time.monotonic() + seconds
    models = [one for _facts, one in recorded_models().items()]
    count = tensors = different = 0
    while models or time.monotonic() < end_s:
        one = models.pop() if models else random_model(choose)
        for difference in differences(asked, one):
            different += 1
            print(difference[:1000])
        count += 1
        tensors += len(one[1])
    asked_types = 2 * len(FILE_TYPES) * tensors
    print(f"{count} models, {asked_types} tensor types, {different} differences")
    return different == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--compare", type=float, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with oracle() as asked:
        if options.record:
            record(asked)
        return 0 if options.compare is None or compare(asked, options.compare, options.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
