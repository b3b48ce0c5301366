"""The whole exception tree.

    BendiError                exit 1   anything bendi can explain
    ├── UsageError            exit 2   the request makes no sense: wrong name, option or value
    │   ├── ConfigError       exit 2   a settings or persona file cannot be used
    │   └── NotFoundError     exit 3   a model, session, persona or file that does not exist
    ├── ModelFileError        exit 4   a file that is not a usable model: corrupt, hostile, unsupported
    ├── StoreError            exit 5   models on disk: space, permission, locked, not ours to delete
    │   ├── ModelIncomplete   exit 5   the download of a model has not ended
    │   ├── DownloadError     exit 6   the network or the remote side failed; what arrived is kept
    │   │   └── Offline       exit 6   bendi is set to open no connections
    │   └── HashMismatch      exit 7   the bytes are not the bytes that were promised
    ├── EngineError           exit 8   the engine could not start, or died
    │   ├── EngineUnsupported exit 8   this machine cannot run this engine build
    │   ├── EngineCrashed     exit 8   the worker process ended in the middle
    │   │   └── LoadRefused   exit 8   the engine looked at the model file and would not load it
    │   ├── OutOfMemory       exit 9   the model does not fit
    │   └── RequestRejected   exit 2   the engine refused the request (bad schema, bad parameter)
    ├── ContextOverflow       exit 10  the prompt does not fit in the context; nothing was cut
    └── DataError             exit 11  sessions or state on disk cannot be read or written
        └── StateUnusable     exit 11  a saved state of a conversation does not fit, or cannot be had

Every error has a `message` (what happened and why) and a `hint` (the next command to type, or what to change).
Both are already translated: they are built with `i18n._` where the error is raised. No traceback reaches a user;
Ctrl-C exits with 130.
"""

from __future__ import annotations


class BendiError(Exception):
    """Root of the tree. `message`: what happened and why. `hint`: what to do next, may be empty."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BendiError):
    exit_code = 2


class ConfigError(UsageError):
    pass


class NotFoundError(UsageError):
    exit_code = 3


class ModelFileError(BendiError):
    exit_code = 4


class StoreError(BendiError):
    exit_code = 5


class ModelIncomplete(StoreError):
    pass


class DownloadError(StoreError):
    exit_code = 6


class Offline(DownloadError):
    pass


class HashMismatch(StoreError):
    exit_code = 7


class EngineError(BendiError):
    exit_code = 8


class EngineUnsupported(EngineError):
    pass


class EngineCrashed(EngineError):
    pass


class LoadRefused(EngineCrashed):
    pass


class OutOfMemory(EngineError):
    exit_code = 9


class RequestRejected(EngineError):
    exit_code = 2


class ContextOverflow(BendiError):
    """The prompt needs more tokens than the context holds. Nothing was cut.

    `needed_tok`: tokens of the prompt plus the answer asked for; `available_tok`: the context length.
    """

    exit_code = 10

    def __init__(self, message: str, *, hint: str = "", needed_tok: int, available_tok: int) -> None:
        super().__init__(message, hint=hint)
        self.needed_tok = needed_tok
        self.available_tok = available_tok


class DataError(BendiError):
    exit_code = 11


class StateUnusable(DataError):
    """A state of a conversation cannot be saved or used; the conversation itself is untouched.

    `reason`, for programs: `"missing"`, `"unreadable"`, `"unwritable"`, `"corrupt"`, `"not ours"`, `"name"`; what
    differs: `"schema"`, `"engine"`, `"model"`, `"context_tok"`, `"type_k"`, `"type_v"`, `"flash_attention"`;
    `"refused"` by the engine; `"empty"`; not possible with this load: `"disabled"`, `"parallel"`, `"window"`.
    """

    def __init__(self, message: str, *, hint: str = "", reason: str) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
