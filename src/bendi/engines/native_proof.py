"""Proves that a native build computes what the wheel computes, before anybody's model is given to it.

Both load the same small random models, in processes of their own, and are asked for the probabilities of the next token
after the same tokens. A build that crashes, does not answer in time or answers differently is kept aside with the
reason.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bendi.engines import native, native_builds, wheel
from bendi.engines.llama_http import LlamaServerEngine
from bendi.engines.native_builds import NativeBuild, Proof
from bendi.engines.native_proof_cases import CONTEXT_TOK, VOCABULARY, Case, cases, prompts
from bendi.engines.native_recipe import SERVER
from bendi.engines.protocol import LoadRequest
from bendi.engines.random_weights import write_random_model
from bendi.errors import EngineError, OutOfMemory, StoreError
from bendi.formats.blueprints import blueprint_from_config
from bendi.hardware import detect_cpu
from bendi.i18n import N_, _
from bendi.messages import Cancellation, GenerateRequest, Message, Sampling
from bendi.settings import Settings
from bendi.store.disk import make_folder, store_error

KL_LIMIT = 0.001
"""Kullback-Leibler divergence from the wheel's probabilities, in nats. The wheel differs from itself, with another
number of threads or without flash attention, by up to half of it; a right AVX-512 build from the wheel by a twelfth."""
LOGPROB_LIMIT = 0.2
"""Largest difference of a token's log-probability, in nats. The wheel differs from itself by up to half of it."""
DEMO_MODEL = Path(__file__).parent.parent / "assets" / "demo.gguf"
FACTS = (
    ("Why does memory bandwidth decide how fast a model generates text?", ("memory",)),
    ("为什么内存带宽决定生成速度？", ("内存",)),
)
"""Questions that the built-in model was trained to answer, and what a right answer contains."""
_PATIENCE_S = 60.0
_DEMO = N_("the built-in model")
_TORN = (EngineError, ValueError, KeyError, TypeError, IndexError)

OnProgress = Callable[[int, int, str], None]
Opener = Callable[[LoadRequest], LlamaServerEngine]
Table = list[dict[int, float]]


@dataclass
class Distance:
    """How far answers are from the reference's, at most. `kl`: in nats; `logprob`: of one token, in nats."""

    kl: float = 0.0
    logprob: float = 0.0

    def widen(self, other: Distance) -> None:
        self.kl, self.logprob = max(self.kl, other.kl), max(self.logprob, other.logprob)

    @property
    def tolerable(self) -> bool:
        # Written so that what is not a number is not tolerable either.
        return self.kl <= KL_LIMIT and self.logprob <= LOGPROB_LIMIT


class _Refused(Exception):
    """The build did something that it must not do; the text says what."""


@dataclass(frozen=True)
class Trial:
    """How thorough and how patient a proof is."""

    quick: bool = False
    patience_s: float = _PATIENCE_S


def prove(
    build: NativeBuild, settings: Settings, on_progress: OnProgress | None = None, trial: Trial | None = None
) -> NativeBuild:
    """`build` with what came of its proof, which is kept beside it; a quick one only when it failed.

    Raises StoreError when the models cannot be written, EngineError when the wheel itself does not work here,
    OutOfMemory. What the build does wrong is not an error but the result.
    """
    trial = trial or Trial()
    report = on_progress or (lambda _done, _total, _label: None)
    started_s = time.monotonic()
    make_folder(native_builds.engines_folder(settings))
    folder = Path(tempfile.mkdtemp(prefix="try-", dir=native_builds.engines_folder(settings)))
    run = _Run(lambda load: native.open_engine(load, build=build), folder, trial.patience_s)
    reason = ""
    try:
        if not native_builds.intact(build):
            raise _Refused(_("The program is not the one that was built."))
        todo = cases(detect_cpu().usable_cores, quick=trial.quick)
        for done, case in enumerate(todo):
            report(done, len(todo) + 1, case.name)
            run.compare(case)
        report(len(todo), len(todo) + 1, _(_DEMO))
        run.ask_facts()
    except _Refused as error:
        reason = str(error)
    except OSError as error:
        raise store_error(error, folder) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    proof = Proof(
        proven=not reason,
        fingerprint=native_builds.fingerprint(),
        server_sha256=build.manifest.programs[SERVER].sha256,
        reason=reason,
        proved_at=datetime.now(UTC).isoformat(timespec="seconds"),
        took_s=round(time.monotonic() - started_s, 1),
        cases=run.done,
        worst={"kl": run.worst.kl, "logprob": run.worst.logprob},
    )
    if trial.quick and proof.proven:
        # Too little to trust it; but one failure is enough.
        return NativeBuild(build.folder, build.manifest, proof)
    return native_builds.save_proof(build, proof)


@dataclass
class _Run:
    """One proof. `open_candidate`: loads a model with the build on trial."""

    open_candidate: Opener
    folder: Path
    patience_s: float
    worst: Distance = field(default_factory=Distance)
    done: int = 0

    def compare(self, case: Case) -> None:
        """Raises _Refused when the build is not to be trusted with `case`."""
        path = write_model(case, self.folder)
        try:
            load = load_request(case, path, self.patience_s)
            for series in range(case.attempts):
                distance = self._measured(case, load, series)
                if distance.tolerable:
                    break
        finally:
            path.unlink(missing_ok=True)
        self.worst.widen(distance)
        self.done += 1
        if not distance.tolerable:
            raise _Refused(
                _(
                    "{case}: the probabilities of the next token are wrong (KL {kl:.3g}, up to {logprob:.3g} nats)"
                ).format(case=case.name, kl=distance.kl, logprob=distance.logprob)
            )

    def _measured(self, case: Case, load: LoadRequest, series: int) -> Distance:
        expected = answers(wheel.open_engine, load, case, self.patience_s, series)
        try:
            found = answers(self.open_candidate, load, case, self.patience_s, series)
        except OutOfMemory:
            raise  # The machine's fault, not the build's.
        except _TORN as error:
            raise _Refused(f"{case.name}: {_told(error)}") from error
        return farthest(expected, found, case.spared)

    def ask_facts(self) -> None:
        """The built-in model must still know what it was trained to know."""
        load = LoadRequest(DEMO_MODEL, context_tok=CONTEXT_TOK, load_timeout_s=self.patience_s)
        for question, words in FACTS:
            request = GenerateRequest(
                messages=(Message("user", question),), max_tokens=160, sampling=Sampling(temperature=0.0)
            )
            cancel = Cancellation()
            timer = threading.Timer(self.patience_s, cancel.cancel)
            timer.start()
            try:
                with closing(self.open_candidate(load)) as engine:
                    text = "".join(chunk.text for chunk in engine.generate(request, cancel))
            except OutOfMemory:
                raise
            except _TORN as error:
                raise _Refused(f"{_(_DEMO)}: {_told(error)}") from error
            finally:
                timer.cancel()
            if cancel.cancelled:
                raise _Refused(f"{_(_DEMO)}: " + _("The engine did not answer in time."))
            if not all(word in text for word in words):
                raise _Refused(_("the built-in model answers nonsense: {text}").format(text=text[:120]))


def write_model(case: Case, folder: Path) -> Path:
    """The random model of `case`. Raises StoreError."""
    blueprint = blueprint_from_config(case.config, case.kind)
    types = [case.type_name if name != "F32" else name for name in blueprint.default_types()]
    path = folder / "model.gguf"
    try:
        path.unlink(missing_ok=True)
        return write_random_model(path, blueprint, types)
    except OSError as error:
        raise store_error(error, path) from error


def load_request(case: Case, path: Path, patience_s: float = _PATIENCE_S) -> LoadRequest:
    return LoadRequest(
        model_path=path,
        context_tok=CONTEXT_TOK,
        threads=case.threads or detect_cpu().usable_cores,
        load_timeout_s=patience_s,
        type_k=case.kv_type,
        type_v=case.kv_type,
        flash_attention=case.flash_attention,
    )


def answers(
    open_engine: Opener, load: LoadRequest, case: Case, patience_s: float = _PATIENCE_S, series: int = 0
) -> Table:
    """Log-probabilities of all tokens after every prompt of a series. Raises EngineError, ValueError when they are not
    complete."""
    table: Table = []
    with closing(open_engine(load)) as engine:
        for prompt, new_tok in prompts(series):
            found, computed_tok = engine.next_token(prompt, VOCABULARY, patience_s)
            if computed_tok < new_tok or (computed_tok > new_tok and not case.windowed):
                raise ValueError(f"{computed_tok} tokens were computed instead of {new_tok}")
            table.append(found)
    return table


def farthest(expected: Table, found: Table, spared: int = 0) -> Distance:
    """The largest distances between answers to the same prompts, without the `spared` worst; infinite where any answer
    has no probabilities."""
    distances = [distance(reference, other) for reference, other in zip(expected, found, strict=True)]
    worst = Distance()
    for kept in sorted(distances, key=lambda one: one.kl)[: max(len(distances) - spared, 1)]:
        worst.widen(kept)
    return worst if all(math.isfinite(one.kl) for one in distances) else Distance(math.inf, math.inf)


def distance(reference: Mapping[int, float], other: Mapping[int, float]) -> Distance:
    """Between two tables of log-probabilities of the same tokens."""
    if reference.keys() != other.keys() or not all(map(math.isfinite, other.values())):
        return Distance(math.inf, math.inf)
    kl = sum(math.exp(value) * (value - other[token]) for token, value in reference.items())
    return Distance(max(kl, 0.0), _widest((value - other[token]) for token, value in reference.items()))


def _widest(differences: Iterable[float]) -> float:
    return max((abs(difference) for difference in differences), default=math.inf)


def _told(error: Exception) -> str:
    if isinstance(error, EngineError | StoreError):
        return error.message
    return _("the answer is not what llama-server answers ({error})").format(error=error)
