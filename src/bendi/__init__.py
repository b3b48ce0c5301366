"""bendi (本地): run large language models privately on your own machine.

    with bendi.load("demo") as model:
        for chunk in model.chat("What is a KV cache?"):
            print(chunk.text, end="")

Importing this package loads nothing heavy: the names below are fetched when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bendi.api import Model, load
    from bendi.errors import BendiError
    from bendi.messages import Cancellation, Chunk, Message, Sampling, Timings, Usage

_HOME = {
    "load": "api",
    "Model": "api",
    "BendiError": "errors",
    "Cancellation": "messages",
    "Chunk": "messages",
    "Message": "messages",
    "Sampling": "messages",
    "Timings": "messages",
    "Usage": "messages",
}

__version__ = "0.1.0"
__all__ = [
    "BendiError", "Cancellation", "Chunk", "Message", "Model", "Sampling", "Timings", "Usage", "__version__", "load",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"bendi.{_HOME[name]}"), name)
    raise AttributeError(f"module 'bendi' has no attribute {name!r}")
