"""Pulls for tests: impatient, and with everything that was reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bendi.settings import Settings
from bendi.store import Store
from bendi.store.progress import Progress
from bendi.store.pull import PullEvents, PullResult, pull
from bendi.store.transport import DownloadOptions

IMPATIENT = DownloadOptions(
    piece_bytes=4096, attempts=3, backoff_s=0.0, connect_s=5.0, stall_s=0.3, journal_period_s=0.05, disk_reserve_bytes=0
)


class Puller:
    """Pulls into one store, and remembers what was reported."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.options = IMPATIENT
        self.notes: list[str] = []
        self.progress: list[Progress] = []

    @property
    def store(self) -> Store:
        return Store(self.settings)

    def use(self, **changes: object) -> Puller:
        self.settings = replace(self.settings, **changes)  # type: ignore[arg-type]
        return self

    def __call__(self, text: str, *, force: bool = False, **changes: object) -> PullResult:
        events = PullEvents(progress=self.progress.append, note=self.notes.append)
        options = replace(self.options, **changes)  # type: ignore[arg-type]
        return pull(self.store, text, options=options, events=events, force=force)


def everything(root: Path) -> set[str]:
    """Paths of all files below `root`, relative, without lock files."""
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }
