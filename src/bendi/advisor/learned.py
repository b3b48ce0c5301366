"""Plans corrected by what earlier answers on this machine took."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from bendi.measured import MeasuredStore, Ratio, Residual
from bendi.planner.learning import adjusted
from bendi.planner.plan import LOAD_ERROR, Plan, SpeedAt
from bendi.planner.speed import Rate


class Learned:
    """The errors of earlier predictions for one machine and engine build. Read once; nothing to read is no error."""

    def __init__(self, path: Path | None, machine_id: str = "", build: str = "") -> None:
        self._path, self._machine, self._build = path, machine_id, build
        self._load: Ratio | None = None
        self._residuals: dict[tuple[str | None, str | None], Residual] = {}

    def applied(self, plan: Plan, key: str = "") -> Plan:
        """`plan` with speeds, and the times that follow from them, moved towards what was measured. `key`: see
        `measured.model_key`; empty where the model's tensors are not known."""
        levels = self._levels(key, plan.quantization)
        plan = self._loading(plan)
        if not plan.speeds or not any(level.n for level in levels):
            return plan
        speeds = tuple(_moved(speed, levels) for speed in plan.speeds)
        pp_factor = plan.speeds[0].pp.tok_s / speeds[0].pp.tok_s
        tg_factor = plan.speeds[0].tg.tok_s / speeds[0].tg.tok_s
        ttft_s = plan.ttft_s * pp_factor
        return replace(
            plan,
            speeds=speeds,
            ttft_s=ttft_s,
            request_s=ttft_s + (plan.request_s - plan.ttft_s) * tg_factor,
            error=max(speeds[0].pp.error, speeds[0].tg.error),
        )

    def _loading(self, plan: Plan) -> Plan:
        if self._path is None:
            return plan
        if self._load is None:
            with closing(MeasuredStore(self._path)) as store:
                self._load = store.load_ratio(self._machine, self._build)
        # The logarithm of the time is what errors are symmetric in: a rate does just that.
        factor = adjusted(Rate(1.0, LOAD_ERROR), self._load)
        return replace(
            plan,
            load_warm_s=plan.load_warm_s * factor.tok_s,
            load_cold_s=plan.load_cold_s + plan.load_warm_s * (factor.tok_s - 1),
            load_error=factor.error,
        )

    def _levels(self, key: str, quantization: str) -> tuple[Residual, ...]:
        """The most specific first, as `adjusted` wants them."""
        if self._path is None or not self._residual(None, None).n:
            return ()
        model = self._residual(key, None) if key else Residual()
        return model, self._residual(None, quantization), self._residual(None, None)

    def _residual(self, key: str | None, quantization: str | None) -> Residual:
        if (key, quantization) not in self._residuals:
            assert self._path is not None
            with closing(MeasuredStore(self._path)) as store:
                found = store.residuals(self._machine, self._build, key, quantization)
            self._residuals[key, quantization] = found
        return self._residuals[key, quantization]


def _moved(speed: SpeedAt, levels: Sequence[Residual]) -> SpeedAt:
    return SpeedAt(
        speed.depth_tok,
        adjusted(speed.pp, *(level.pp for level in levels)),
        adjusted(speed.tg, *(level.tg for level in levels)),
    )
