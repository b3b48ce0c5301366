"""What it means that a worker refuses something, or is gone: errors in our words."""

from __future__ import annotations

from typing import NoReturn

from bendi.engines.process import WorkerProcess
from bendi.engines.transport import WorkerGone, WorkerRefused
from bendi.errors import ContextOverflow, EngineCrashed, EngineError, RequestRejected
from bendi.i18n import _


class WorkerErrors:
    """Of one worker. `train_context_tok`: the longest context of its model, 0 where it is not known. `unloaded`: it is
    gone because it was ended."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self.train_context_tok = 0
        self.unloaded = False

    def fail(self, error: WorkerGone | WorkerRefused) -> NoReturn:
        """Raises what happened. Takes a moment where the worker is about to end."""
        if isinstance(error, WorkerGone):
            raise self.death() from error
        if error.body.get("type") == "exceed_context_size_error":
            numbers = int(error.body["n_prompt_tokens"]), int(error.body["n_ctx"])
            raise overflow(*numbers, self.train_context_tok) from error
        if error.status in (400, 422):
            raise RequestRejected(
                _("The engine refused the request: {reason}").format(reason=error.body.get("message", "")),
                hint=_("Check the parameters, the tools and the JSON schema of the request."),
            ) from error
        raise EngineError(
            _("The engine could not answer: {reason}").format(reason=error.body.get("message", error.status))
        ) from error

    def death(self) -> EngineError:
        """Why it is gone, which takes a moment to find out."""
        if self.unloaded:
            return EngineCrashed(_("The model was unloaded."), hint=_("Load it again."))
        return self._worker.death()


def overflow(needed_tok: int, available_tok: int, train_context_tok: int) -> ContextOverflow:
    """The error for a prompt of `needed_tok` tokens in a context of `available_tok`."""
    # Room for an answer, and a round number.
    wanted_tok = -(-(needed_tok + 256) // 256) * 256
    if wanted_tok <= train_context_tok:
        hint = _("Load the model with a larger context (--context {wanted}), or choose --policy compact or slide.")
    else:
        hint = _("This model holds {train} tokens at most: shorten the text, or choose --policy compact or slide.")
    return ContextOverflow(
        _("The prompt has {needed} tokens, but the context holds {available}; nothing was cut.").format(
            needed=needed_tok, available=available_tok
        ),
        hint=hint.format(wanted=wanted_tok, train=train_context_tok),
        needed_tok=needed_tok,
        available_tok=available_tok,
    )
