"""The headers of published models, without the models."""

from __future__ import annotations

from bendi.formats.blueprints import blueprint_from_config
from published_configs import ALL, MEASURED_FIRST

MODELS = tuple(blueprint_from_config(model.config, model.name) for model in MEASURED_FIRST)
"""Compared with the engine at three contexts and three types of KV cache."""
MORE_MODELS = tuple(blueprint_from_config(model.config, model.name) for model in ALL[len(MEASURED_FIRST) :])
"""Compared at two settings."""
