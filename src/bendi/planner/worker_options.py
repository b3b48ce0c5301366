"""The command line of llama-server that carries out a plan."""

from __future__ import annotations

from bendi.planner.plan import Plan

_ALL_LAYERS = 999


def worker_arguments(plan: Plan) -> list[str]:
    """Options of llama-server for `plan`, without the model and the address. Nothing is left for the engine to choose:
    with `--fit` or a default in between, the plan would not be what runs."""
    settings = plan.settings
    arguments = ["-c", str(settings.context_tok * settings.parallel), "-np", str(settings.parallel)]
    arguments += ["-b", str(settings.n_batch), "-ub", str(settings.n_ubatch)]
    arguments += ["-ctk", settings.type_k, "-ctv", settings.type_v, "-fa", "on", "--fit", "off"]
    if settings.threads:
        arguments += ["-t", str(settings.threads), "-tb", str(settings.threads)]
    if not settings.gpu_layers:
        return [*arguments, "-ngl", "0", "-dev", "none"]
    whole = plan.shares[0].layers == 0
    # The engine counts the output head as one more layer, the first to go to a GPU.
    arguments += ["-ngl", str(_ALL_LAYERS if whole else settings.gpu_layers + 1), "-sm", "layer"]
    if settings.tensor_split:
        arguments += ["-ts", ",".join(f"{share:g}" for share in settings.tensor_split)]
    if settings.cpu_expert_layers:
        arguments += ["-ncmoe", str(plan.shares[0].layers + settings.cpu_expert_layers)]
    return arguments
