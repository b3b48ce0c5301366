"""The projector of a model that sees: the file that turns images into what the model reads, checked like the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bendi.engines.protocol import Engine, LoadRequest
from bendi.errors import EngineError, ModelFileError, RequestRejected
from bendi.formats import model_info, read_gguf
from bendi.i18n import _
from bendi.units import MIB

_WORK_BYTES = 256 * MIB
"""A guess at what encoding one image takes beside the weights."""
_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM")
"""Of the formats that the engine decodes by itself. For all others it would start a program, which is never allowed."""


@dataclass(frozen=True)
class Projector:
    """`memory_bytes`: what it takes; all of it is private, since its weights are not mapped from the file."""

    path: Path
    memory_bytes: int


def read_projector(path: Path) -> Projector:
    """Raises ModelFileError when it is not a sound file, or no projector for images."""
    header = read_gguf(path)
    info = model_info(header)
    if info.architecture != "clip" or header.metadata.get("clip.has_vision_encoder") is not True:
        raise ModelFileError(
            _("{path} is no projector for images.").format(path=path),
            hint=_("It is a file with `mmproj` in its name, beside the model that it belongs to."),
        )
    return Projector(path.absolute(), info.tensor_bytes + _WORK_BYTES)


def projector_beside(model_path: Path) -> Path | None:
    """The projector in the folder of a model whose header says that it belongs to it; None where there is no such one.
    Files that cannot be read are passed over."""
    try:
        files = sorted(path for path in model_path.parent.glob("*.gguf") if "mmproj" in path.name.lower())
    except OSError:
        return None
    if not files or model_path in files:
        return None
    wanted = _names(model_path)
    return next((path for path in files if wanted & _names(path)), None)


def _names(path: Path) -> set[tuple[str, str]]:
    """What a header says of whose file it is."""
    try:
        header = read_gguf(path)
    except (ModelFileError, OSError):
        return set()
    names = ((key, header.text(f"general.{key}").strip().lower()) for key in ("name", "basename"))
    return {(key, name) for key, name in names if name}


def open_seeing(load: LoadRequest, open_it: Callable[[LoadRequest], Engine], *, must_see: bool = False) -> Engine:
    """What `open_it` opens. Unless it `must_see`, a projector that does not fit after all is left out: then the model
    answers, and sees nothing. Raises as `open_it`."""
    try:
        return open_it(load)
    except EngineError:
        if load.mmproj_path is None or must_see:
            raise
    return open_it(replace(load, mmproj_path=None))


def check_image(image: bytes) -> None:
    """Raises RequestRejected for what cannot be an image that the engine decodes by itself."""
    if not image.startswith(_BEGINNINGS):
        raise RequestRejected(_("An image cannot be read."), hint=_("Send PNG, JPEG, GIF or BMP."))
