"""Which tensor gets which type when llama.cpp quantizes a model, and how many bytes that makes.

    quantized_bytes(shapes_of(gguf), facts_of(gguf), "Q4_K_M")

The choice that `llama-quantize` makes without options other than an importance matrix. Files of other makers may
differ: their names do not tell, only their headers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from bendi.errors import ModelFileError, UsageError
from bendi.formats import TENSOR_TYPES_BY_NAME, GgufFile, aligned
from bendi.i18n import _
from bendi.planner import mixture_rules as rules
from bendi.planner.mixture_rules import Place, Recipe, Role

_LAYER = re.compile(r"blk\.([0-9]{1,9})")
_FEED_FORWARD = frozenset({Role.UP, Role.GATE, Role.DOWN})


@dataclass(frozen=True, slots=True)
class TensorShape:
    """A tensor before quantization: `shape` innermost first, `type_name` what it is stored as now."""

    name: str
    shape: tuple[int, ...]
    type_name: str = "F32"

    @property
    def row_weights(self) -> int:
        return self.shape[0] if self.shape else 1

    @property
    def dimensions(self) -> int:
        """How many there are without trailing ones; at least 1."""
        return max((at for at, size in enumerate(self.shape, 1) if size > 1), default=1)

    @property
    def is_stack(self) -> bool:
        return len(self.shape) > 2 and self.shape[2] > 1


@dataclass(frozen=True, slots=True)
class MixtureFacts:
    """What mixtures depend on beside the tensors. Head counts are those of the first layer.

    `block_count`: layers, those of multi-token prediction included; `nextn_count`: how many those are.
    """

    architecture: str
    block_count: int
    head_count: int
    head_count_kv: int
    expert_count: int = 0
    nextn_count: int = 0

    @property
    def queries_per_value(self) -> int:
        return self.head_count // self.head_count_kv if self.head_count_kv else 0

    @property
    def is_70b(self) -> bool:
        """Whether llama.cpp calls this model a 70B (`src/models/*.cpp`)."""
        layers = self.block_count - self.nextn_count
        if self.architecture.startswith("llama") and self.head_count == self.head_count_kv:
            return False
        return rules.LAYERS_OF_70B.get(self.architecture) == layers


def facts_of(gguf: GgufFile) -> MixtureFacts:
    """The facts in the header of a model, or of its first part."""
    architecture = gguf.architecture
    head_count = _of_first_layer(gguf, f"{architecture}.attention.head_count", 0)
    block_count = gguf.integer(f"{architecture}.block_count") or 0
    if architecture == "nanbeige":  # its layers run several times and are counted each time
        block_count *= gguf.integer("nanbeige.num_loops") or 1
    extra = 1 if architecture == "graniteswitch" else 0  # llama.cpp adds a layer for the router
    return MixtureFacts(
        architecture=architecture,
        block_count=block_count + extra,
        head_count=head_count,
        head_count_kv=_of_first_layer(gguf, f"{architecture}.attention.head_count_kv", head_count),
        expert_count=gguf.integer(f"{architecture}.expert_count") or 0,
        nextn_count=(gguf.integer(f"{architecture}.nextn_predict_layers") or 0) + extra,
    )


def shapes_of(*parts: GgufFile) -> list[TensorShape]:
    """The tensors of a model, from all its parts."""
    return [TensorShape(tensor.name, tensor.shape, tensor.type.name) for part in parts for tensor in part.tensors]


def quantized_types(
    tensors: Sequence[TensorShape], facts: MixtureFacts, file_type: str, *, imatrix: bool = False
) -> list[str]:
    """The type name of each tensor, in the order of `tensors`, which must be all tensors of the model.

    `file_type`: a name of FILE_TYPES, in any case, or an alias such as `"Q4_K"`. `imatrix`: whether an importance
    matrix is given. Raises UsageError for an unknown `file_type` and for one that llama.cpp cannot apply to this model,
    ModelFileError for a model of experts whose tensors do not say their layer.
    """
    name = _known_name(file_type)
    recipe = rules.RECIPES_OF.get(facts.architecture, rules.RECIPES)[name]
    if TENSOR_TYPES_BY_NAME[recipe.base].block_weights == 1:
        return [recipe.base if _may_be_quantized(t, facts.architecture) else t.type_name for t in tensors]
    types = [tensor.type_name for tensor in tensors]
    for at, role, place in _places(tensors, facts, recipe, imatrix):
        tensor = tensors[at]
        types[at] = _fitting(tensor, _chosen(tensor, role, place, facts, recipe), name)
    return types


def quantized_bytes(
    tensors: Sequence[TensorShape], facts: MixtureFacts, file_type: str, *, imatrix: bool = False
) -> int:
    """Bytes of all tensors in the quantized file, each padded to 32 as in the file. The header is not counted.

    Raises as `quantized_types`.
    """
    types = quantized_types(tensors, facts, file_type, imatrix=imatrix)
    return sum(tensor_bytes(tensor.shape, type_name) for tensor, type_name in zip(tensors, types, strict=True))


def tensor_bytes(shape: Sequence[int], type_name: str) -> int:
    """Bytes that a tensor takes in a file, padding included."""
    size_bytes = TENSOR_TYPES_BY_NAME[type_name].size_bytes(prod(shape))
    return aligned(size_bytes)


def needs_imatrix(tensors: Sequence[TensorShape], facts: MixtureFacts, file_type: str) -> bool:
    """Whether llama.cpp refuses to make this file without an importance matrix. Raises as `quantized_types`."""
    name = _known_name(file_type)
    needing = rules.IMATRIX_TYPES | rules.IMATRIX_TYPES_OF.get(name, frozenset())
    types = quantized_types(tensors, facts, name)
    return any(
        type_name in needing and tensor.name not in rules.ROLE_BY_NAME and _may_be_quantized(tensor, facts.architecture)
        for tensor, type_name in zip(tensors, types, strict=True)
    )


def _known_name(file_type: str) -> str:
    name = file_type.upper()
    name = rules.ALIASES.get(name, name)
    if name not in rules.FILE_TYPES:
        raise UsageError(
            _("There is no quantization {name}.").format(name=file_type),
            hint=_("Choose one of: {names}").format(names=" ".join(rules.FILE_TYPES)),
        )
    return name


def _role(name: str) -> Role:
    exact = rules.ROLE_BY_NAME.get(name)
    return exact or next((role for part, role in rules.ROLE_BY_PART if part in name), Role.OTHER)


def _may_be_quantized(tensor: TensorShape, architecture: str) -> bool:
    if tensor.dimensions < 2 or not tensor.name.endswith("weight") or tensor.name in rules.NEVER_QUANTIZED_NAMES:
        return False
    parts = rules.NEVER_QUANTIZED_PARTS + rules.NEVER_QUANTIZED_PARTS_OF.get(architecture, ())
    return not any(part in tensor.name for part in parts)


def _places(
    tensors: Sequence[TensorShape], facts: MixtureFacts, recipe: Recipe, imatrix: bool
) -> Iterator[tuple[int, Role, Place]]:
    """Index, role and place of every tensor that is quantized, in the order in which llama.cpp counts them."""
    roles = [_role(tensor.name) for tensor in tensors]
    value_count = roles.count(Role.VALUE)
    tied = Role.OUTPUT not in roles
    seen: Counter[Role] = Counter()
    for at in sorted(range(len(tensors)), key=lambda at: (_layer(tensors[at].name), tensors[at].name)):
        role = roles[at]
        if not _may_be_quantized(tensors[at], facts.architecture):
            continue
        index = seen[role]
        seen[role] += 1
        if role in _FEED_FORWARD and facts.expert_count > 1 and recipe.counts_layers and recipe.dense is None:
            index = _checked_layer(tensors[at].name, facts.block_count)
        if tied and role is Role.TOKEN_EMBEDDING:
            role = Role.OUTPUT
        count = value_count if role is Role.VALUE else facts.block_count
        yield at, role, Place(index, count, facts.queries_per_value, facts.expert_count, imatrix)


def _chosen(tensor: TensorShape, role: Role, place: Place, facts: MixtureFacts, recipe: Recipe) -> str:
    if any(part in tensor.name for part in rules.Q8_0_PARTS_OF.get(facts.architecture, ())):
        return "Q8_0"
    if role is Role.OUTPUT:
        fits = tensor.row_weights % TENSOR_TYPES_BY_NAME[recipe.base].block_weights == 0
        return recipe.output if fits else "Q8_0"
    if recipe.dense is not None:
        stack_roles = rules.EXPERT_ROLES_OF.get(facts.architecture)
        stacked = tensor.is_stack and (stack_roles is None or role in stack_roles)
        return recipe.base if stacked else recipe.dense
    if role is Role.TOKEN_EMBEDDING:
        return recipe.embedding or recipe.base
    chosen = next((name for holds, name in recipe.rule(role) if holds(place)), recipe.base)
    if role is Role.VALUE and recipe.raises_70b and facts.is_70b and chosen in ("Q3_K", "Q4_K"):
        return "Q5_K"
    return chosen


def _fitting(tensor: TensorShape, type_name: str, file_type: str) -> str:
    """`type_name`, or what llama.cpp takes instead where rows of this tensor are no whole number of blocks."""
    columns = tensor.row_weights
    block_weights = TENSOR_TYPES_BY_NAME[type_name].block_weights
    if columns % block_weights == 0:
        return type_name
    instead = rules.FALLBACKS.get(type_name)
    if instead is None and block_weights > 32:
        raise UsageError(
            _(
                "This model cannot be quantized to {file_type}: rows of tensor {tensor} have {columns} weights, which "
                "is not a multiple of {block}, and llama.cpp knows nothing to use instead."
            ).format(file_type=file_type, tensor=tensor.name, columns=columns, block=block_weights),
            hint=_("Choose one of: {names}").format(names="Q4_K_M Q5_K_M Q6_K Q8_0"),
        )
    if instead is None or columns % TENSOR_TYPES_BY_NAME[instead].block_weights:
        return rules.LAST_RESORT
    return instead


def _layer(name: str) -> int:
    """The layer in a tensor's name, -1 where there is none."""
    found = _LAYER.match(name)
    return int(found[1]) if found else -1


def _checked_layer(name: str, block_count: int) -> int:
    layer = _layer(name)
    if 0 <= layer < block_count:
        return layer
    raise ModelFileError(
        _("The tensor {name} does not belong to one of the {count} layers of this model.").format(
            name=name, count=block_count
        ),
        hint=_("The file may be damaged: `bendi verify` checks it."),
    )


def _of_first_layer(gguf: GgufFile, key: str, default: int) -> int:
    layers = gguf.array(key)
    if layers is not None:
        return int(layers.values[0]) if layers.values else 0
    number = gguf.integer(key)
    return default if number is None else number
