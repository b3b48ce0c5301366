"""Texts to token numbers and back over llama-server's HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from bendi.engines import transport
from bendi.engines.transport import Address, WorkerGone, WorkerRefused
from bendi.errors import RequestRejected
from bendi.i18n import _


@dataclass(frozen=True)
class TokenCalls:
    """Asks a worker (`TokenReader`). `vocab_size`: its model's. `fail`: raises what went wrong, in our words."""

    address: Address
    vocab_size: int
    fail: Callable[[WorkerGone | WorkerRefused], NoReturn]

    def tokenize(self, text: str, *, special: bool = False, whole: bool = False) -> list[int]:
        return [int(token) for token in self._tokens(text, special, whole, False)]

    def pieces(self, text: str, *, special: bool = False, whole: bool = False) -> list[tuple[int, bytes]]:
        return [(int(row["id"]), _bytes(row["piece"])) for row in self._tokens(text, special, whole, True)]

    def detokenize(self, tokens: Sequence[int]) -> str:
        check_known(tokens, self.vocab_size)
        return str(self._call("/detokenize", {"tokens": list(tokens)})["content"])

    def _tokens(self, text: str, special: bool, whole: bool, pieces: bool) -> list[Any]:
        body = {"content": text, "add_special": whole, "parse_special": special, "with_pieces": pieces}
        return list(self._call("/tokenize", body)["tokens"])

    def _call(self, path: str, body: object) -> dict[str, Any]:
        try:
            return transport.call(self.address, path, body)
        except (WorkerGone, WorkerRefused) as error:
            self.fail(error)


def check_known(tokens: Sequence[int], vocab_size: int) -> None:
    """Raises RequestRejected for a token that the model does not have: llama-server would call that a defect."""
    unknown = [token for token in tokens if not 0 <= token < vocab_size]
    if unknown:
        raise RequestRejected(
            _("This model does not have the token {token}.").format(token=unknown[0]),
            hint=_("Its tokens are numbered from 0 to {last}.").format(last=vocab_size - 1),
        )


def _bytes(piece: str | Sequence[int]) -> bytes:
    """llama-server writes a piece that is no whole character as the numbers of its bytes."""
    return piece.encode() if isinstance(piece, str) else bytes(piece)
