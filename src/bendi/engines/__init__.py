"""Engines: what loads a model and generates text.

Knows one protocol (`protocol`), the worker process that hosts llama.cpp (`worker` is the child, `process` starts and
ends it, `transport` and `llama_http` speak to it), which builds exist (`registry`) and a fake for tests (`fake`). Does
not know sessions, personas, names of models or how they came to this machine.

    engine = open_engine(LoadRequest(model_path=path), settings)
    for chunk in engine.generate(GenerateRequest(messages=(Message("user", "hi"),))):
        print(chunk.text, end="")
    engine.close()
"""

from bendi.engines.protocol import (
    AnswersInLoop,
    Embedder,
    Embeddings,
    Engine,
    EngineInfo,
    Flow,
    HasTokens,
    LoadRequest,
    LoopAnswers,
    Ranking,
    Reranker,
    StatefulEngine,
    StateInfo,
    Taker,
    Tokenizer,
)
from bendi.engines.registry import open_engine, open_recorded_engine

__all__ = [
    "AnswersInLoop",
    "Embedder",
    "Embeddings",
    "Engine",
    "EngineInfo",
    "Flow",
    "HasTokens",
    "LoadRequest",
    "LoopAnswers",
    "Ranking",
    "Reranker",
    "StateInfo",
    "StatefulEngine",
    "Taker",
    "Tokenizer",
    "open_engine",
    "open_recorded_engine",
]
