"""What a folder of GGUF files offers: which files belong together, which quantization each is, which to take.

Works on lists of paths, so that a repository far away and a folder here are read by the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePosixPath

from bendi.errors import NotFoundError
from bendi.i18n import _
from bendi.store.names import typed
from bendi.units import format_size

PREFERENCE = ("Q4_K_M", "UD-Q4_K_M", "Q4_K_S", "UD-Q4_K_XL", "MXFP4", "Q5_K_M", "Q4_0", "Q8_0")
"""Which quantization is taken when nobody says: the usual balance of quality and size first."""

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_LABEL = re.compile(
    r"(?<![A-Za-z0-9])(?:UD[-_])?"
    r"(?:I?Q[1-9](?:_[A-Z0-9]+)*|TQ[12]_0|MXFP[48](?:_MOE)?|NVFP4|BF16|FP?16|FP?32)"
    r"(?![A-Za-z0-9_])",
    re.IGNORECASE,
)
_AUXILIARY = re.compile(r"mmproj|imatrix|(?:^|[-._])dflash|^mtp-", re.IGNORECASE)
MAX_PARTS = 1000
_MAX_COMPARED = 200
"""Characters of a path, and paths, among which the nearest is looked for: that takes long."""


@dataclass(frozen=True)
class Listed:
    """One file of a listing. `path`: relative, `/`-separated. `sha256`, `git_sha1`: what the listing promises."""

    path: str
    size_bytes: int
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Variant:
    """Files that make one model, in order. `label`: quantization, upper case, "" where the name tells none."""

    label: str
    files: tuple[Listed, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def path(self) -> str:
        return self.files[0].path


def split_of(path: str) -> tuple[str, int, int] | None:
    """(stem with folder, number, count) of one part of a split GGUF, else None."""
    match = _SPLIT.fullmatch(path)
    if not match:
        return None
    number, count = int(match["number"]), int(match["count"])
    return (match["stem"], number, count) if 1 <= number <= count <= MAX_PARTS else None


def part_path(stem: str, number: int, count: int) -> str:
    """The path of one part, named as llama.cpp wants to find it."""
    return f"{stem}-{number:05d}-of-{count:05d}.gguf"


def quant_label(path: str) -> str:
    """The quantization that a path names, upper case: `"Q4_K_M"`; "" when it names none.

    The last one of the file name counts, then that of the nearest folder (`Q8_0/model-00001-of-00002.gguf`).
    """
    for part in reversed(PurePosixPath(path).parts):
        found = _LABEL.findall(part)
        if found:
            return str(found[-1]).upper().replace("UD_", "UD-")
    return ""


def is_auxiliary(path: str) -> bool:
    """Whether a GGUF file only accompanies a model: vision projector, importance matrix, draft head."""
    return _AUXILIARY.search(PurePosixPath(path).name) is not None


def group(files: Iterable[Listed]) -> tuple[list[Variant], list[Variant]]:
    """(complete variants, incomplete splits), both in the order of their paths. Auxiliary files are left out."""
    singles: list[Variant] = []
    splits: dict[tuple[str, int], dict[int, Listed]] = {}
    for file in sorted(files, key=lambda file: file.path):
        if not file.path.lower().endswith(".gguf") or is_auxiliary(file.path):
            continue
        split = split_of(file.path)
        if split is None:
            singles.append(Variant(quant_label(file.path), (file,)))
        else:
            splits.setdefault((split[0], split[2]), {})[split[1]] = file
    complete, incomplete = singles, list[Variant]()
    for (_stem, count), parts in splits.items():
        ordered = tuple(parts[number] for number in sorted(parts))
        variant = Variant(quant_label(ordered[0].path), ordered)
        (complete if len(parts) == count else incomplete).append(variant)
    return sorted(complete, key=lambda variant: variant.path), incomplete


def choose(
    files: Sequence[Listed], quant: str | None, file: str | None, spell: Callable[[Variant, bool], str]
) -> Variant:
    """The variant that was asked for, or the preferred one.

    `spell(variant, by_file)` gives the name to type for a variant. Raises NotFoundError when there is none or several
    fit; its hint lists what there is, with sizes and the exact commands.
    """
    variants, incomplete = group(files)
    if file is not None:
        return _by_file(files, variants, incomplete, file)
    if not variants:
        raise NotFoundError(
            _("there is no complete GGUF model here ({count} files)").format(count=len(files)),
            hint=_("Look for a repository whose name ends in GGUF."),
        )
    wanted = (quant, f"UD-{quant}") if quant else PREFERENCE
    for label in wanted:
        found = [variant for variant in variants if variant.label == label]
        if len(found) == 1:
            return found[0]
        if found:
            raise NotFoundError(
                _("{count} models here are {quant}").format(count=len(found), quant=label),
                hint=menu(found, spell),
            )
    if quant is None and (len(variants) == 1 or len({variant.label for variant in variants}) == len(variants)):
        return variants[0]
    if quant is None:
        raise NotFoundError(_("there are several models here"), hint=menu(variants, spell))
    raise NotFoundError(_("there is no {quant} here").format(quant=quant), hint=menu(variants, spell))


def menu(variants: Sequence[Variant], spell: Callable[[Variant, bool], str], limit: int = 40) -> str:
    """The commands that would take each of `variants`, one a line, with sizes."""
    labels = [variant.label for variant in variants]
    names = [typed(spell(variant, not variant.label or labels.count(variant.label) > 1)) for variant in variants]
    width = max(len(name) for name in names)
    lines = [
        f"bendi pull {name:<{width}}  {format_size(variant.size_bytes):>8}"
        for name, variant in zip(names[:limit], variants, strict=False)
    ]
    if len(variants) > limit:
        lines.append(_("... and {count} more").format(count=len(variants) - limit))
    return "\n".join(lines)


def _by_file(files: Sequence[Listed], variants: Sequence[Variant], incomplete: Sequence[Variant], path: str) -> Variant:
    for variant in [*variants, *(Variant("", (file,)) for file in files if is_auxiliary(file.path))]:
        if any(file.path == path for file in variant.files):
            return variant
    if any(file.path == path for variant in incomplete for file in variant.files):
        raise NotFoundError(_("{file} is part of a split model, and not all of its parts are there").format(file=path))
    paths = [file.path for file in files if file.path.lower().endswith(".gguf") and len(file.path) <= _MAX_COMPARED]
    close = get_close_matches(path[:_MAX_COMPARED], paths[:_MAX_COMPARED], n=3, cutoff=0.4)
    raise NotFoundError(
        _("there is no file {file} here").format(file=path),
        hint=_("Nearest: {files}").format(files=", ".join(close)) if close else "",
    )
