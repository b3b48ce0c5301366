"""What this machine was measured to do: calibrations, loads and answers, each beside what was predicted; the fastest
settings of models.

Knows numbers and when they were taken, in one SQLite file that two processes may use at once. Does not know how
predictions are made, and holds no text of any conversation: only counts, bytes and times.
"""

from bendi.measured.history import HistoryRow, history
from bendi.measured.keys import machine_id, model_key
from bendi.measured.records import AnswerRecord, Buffers, CalibrationRow, LoadRecord
from bendi.measured.residual import Ratio, Residual
from bendi.measured.store import MeasuredStore
from bendi.measured.tunings import TuningRow, TuningStore

__all__ = [
    "AnswerRecord",
    "Buffers",
    "CalibrationRow",
    "HistoryRow",
    "LoadRecord",
    "MeasuredStore",
    "Ratio",
    "Residual",
    "TuningRow",
    "TuningStore",
    "history",
    "machine_id",
    "model_key",
]
