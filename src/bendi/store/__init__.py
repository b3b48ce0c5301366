"""Where models are, and how they come.

Knows names of models, the folders of this machine (ours, and those of other programs, which are only read), the wire
protocols of the hub, ModelScope, the Ollama registry and plain URLs, and how a download survives a break. Does not
know what is inside a model (`formats` does; it is asked once, before a file is installed), whether it fits, or how to
run it. Nothing here prints: progress and notes go to callables.

`local.Store` finds models, `pull.pull` brings them, `importing`, `upkeep` and `moving` look after them. Only
`transport` opens connections, and only when a pull asks for it.
"""

from bendi.store.discover import LocalModel
from bendi.store.local import Store

__all__ = ["LocalModel", "Store"]
