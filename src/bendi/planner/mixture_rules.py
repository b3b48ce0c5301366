"""The mixtures of llama.cpp: what each whole-file quantization stores each kind of tensor as.

Only facts, as data. A rule is a list of (condition, type): the first condition that holds decides, and where none holds
the tensor gets the base type. Facts from llama.cpp `src/llama-quant.cpp` as it is in the `llama-cpp-python` 0.3.36
source package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto


class Role(Enum):
    """What a tensor does, as far as mixtures tell tensors apart."""

    TOKEN_EMBEDDING = auto()
    OUTPUT = auto()
    VALUE = auto()
    KEY = auto()
    QUERY = auto()
    ATTENTION_OUTPUT = auto()
    UP = auto()
    GATE = auto()
    DOWN = auto()
    OTHER = auto()


ROLE_BY_NAME: Mapping[str, Role] = {
    "output.weight": Role.OUTPUT,
    "token_embd.weight": Role.TOKEN_EMBEDDING,
    "per_layer_token_embd.weight": Role.TOKEN_EMBEDDING,
}
ROLE_BY_PART: tuple[tuple[str, Role], ...] = (
    ("attn_qkv.weight", Role.VALUE),
    ("attn_kv_b.weight", Role.VALUE),
    ("attn_v.weight", Role.VALUE),
    ("attn_k.weight", Role.KEY),
    ("attn_q.weight", Role.QUERY),
    ("attn_output.weight", Role.ATTENTION_OUTPUT),
    ("ffn_up", Role.UP),
    ("ffn_gate", Role.GATE),
    ("ffn_down", Role.DOWN),
)
"""Parts of names, in the order they are looked for. Fused QKV and the expansion of MLA count as value tensors."""

NEVER_QUANTIZED_NAMES = frozenset({"position_embd.weight", "token_types.weight"})
NEVER_QUANTIZED_PARTS: tuple[str, ...] = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "attn_rel_b.weight",
    "time_mix_first.weight",
    *(f"time_mix_{letter}{number}.weight" for letter in "wva" for number in range(3)),
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
)
NEVER_QUANTIZED_PARTS_OF: Mapping[str, tuple[str, ...]] = {
    "glm5-next": (
        "hc_",
        "indexer.attn_q_b",
        "indexer.attn_k",
        "indexer.proj",
        "indexer_compressor_gate",
        "indexer_compressor_ape",
        "ssm_f_a.weight",
        "ssm_f_b.weight",
        "ssm_g_a.weight",
        "ssm_g_b.weight",
        "ssm_beta.weight",
        "attn_kv_a_mqa.weight",
        "attn_k_b.weight",
        "attn_v_b.weight",
    ),
}
"""By architecture, beside those that no architecture quantizes."""
Q8_0_PARTS_OF: Mapping[str, tuple[str, ...]] = {"glm5-next": ("attn_q_a", "attn_q_b", "nextn.eh_proj")}
"""By architecture: tensors that become Q8_0 in every quantized file."""

LAYERS_OF_70B: Mapping[str, int] = {
    "llama": 80,
    "llama-embed": 80,
    "qwen2": 80,
    "deci": 80,
    "olmo": 80,
    "jais2": 68,
}
"""The depth at which an architecture counts as a 70B model, whose small value tensors get more bits. The two llamas do
so only with grouped queries."""

FALLBACKS: Mapping[str, str] = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
"""What a tensor becomes whose rows are no multiple of the block. Types in blocks of 32 become `LAST_RESORT` at once."""
LAST_RESORT = "F16"

IMATRIX_TYPES = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"})
"""Types that llama.cpp refuses to make without an importance matrix, except for embeddings and output."""
IMATRIX_TYPES_OF: Mapping[str, frozenset[str]] = {"Q2_K_S": frozenset({"Q2_K"})}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor stands.

    `index`: how many tensors of its role come before it (in a model of experts: its layer); `count`: how many there
    are, or how many layers. `queries_per_value`: query heads for each value head, 0 where the first layer has none.
    """

    index: int
    count: int
    queries_per_value: int
    expert_count: int
    imatrix: bool


Condition = Callable[[Place], bool]
Rule = tuple[tuple[Condition, str], ...]


def always(place: Place) -> bool:
    return True


def first_eighth(place: Place) -> bool:
    return place.index < place.count // 8


def first_sixteenth(place: Place) -> bool:
    return place.index < place.count // 16


def middle(place: Place) -> bool:
    return place.count // 8 <= place.index < 7 * place.count // 8


def spread(place: Place) -> bool:
    """The ends, and every third in between."""
    return not middle(place) or (place.index - place.count // 8) % 3 == 2


def first_two(place: Place) -> bool:
    return place.index < 2


def first_four(place: Place) -> bool:
    return place.index < 4


def grouped(place: Place) -> bool:
    return place.queries_per_value >= 4


def grouped_or_experts(place: Place) -> bool:
    return grouped(place) or place.expert_count >= 4


def eight_experts(place: Place) -> bool:
    return place.expert_count == 8


def with_imatrix(place: Place) -> bool:
    return place.imatrix


def without_imatrix(place: Place) -> bool:
    return not place.imatrix


def both(one: Condition, other: Condition) -> Condition:
    return lambda place: one(place) and other(place)


def either(one: Condition, other: Condition) -> Condition:
    return lambda place: one(place) or other(place)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One whole-file quantization.

    `base`: the type of all that no rule speaks of. `output`: of the output matrix, also when it is the embedding;
    `embedding`: of an embedding that is not the output, None for the base type. `dense`: of every matrix that is not a
    stack of experts, None where stacks are nothing special. `counts_layers`: the place of a feed-forward tensor in a
    model of experts is its layer. `raises_70b`: Q3_K and Q4_K value tensors of a 70B model become Q5_K.
    """

    base: str
    output: str = "Q6_K"
    embedding: str | None = None
    dense: str | None = None
    value: Rule = ()
    key: Rule = ()
    query: Rule = ()
    attention_output: Rule = ()
    up: Rule = ()
    gate: Rule = ()
    down: Rule = ()
    counts_layers: bool = True
    raises_70b: bool = True

    def rule(self, role: Role) -> Rule:
        """The rule for tensors of `role`; empty for roles that have none."""
        match role:
            case Role.VALUE:
                return self.value
            case Role.KEY:
                return self.key
            case Role.QUERY:
                return self.query
            case Role.ATTENTION_OUTPUT:
                return self.attention_output
            case Role.UP:
                return self.up
            case Role.GATE:
                return self.gate
            case Role.DOWN:
                return self.down
            case _:
                return ()


def _very_low(base: str, *, better: str, embedding: str, attention_output: Rule = ()) -> Recipe:
    """About two bits or fewer. `better`: what value tensors and the first `down` tensors get."""
    return Recipe(
        base,
        output="Q5_K",
        embedding=embedding,
        value=((grouped_or_experts, "Q4_K"), (always, better)),
        key=((eight_experts, "Q4_K"),),
        attention_output=((eight_experts, "Q5_K"), *attention_output),
        down=((first_eighth, better),),
        counts_layers=False,
        raises_70b=False,
    )


def _with_eight_experts(name: str, recipe: Recipe) -> Recipe:
    """Attention is a small share of a model of eight experts and gets more bits there."""
    attention_output = "Q5_K" if name in _Q5_K_OUTPUT_OF_EIGHT else recipe.base
    return replace(
        recipe,
        value=((eight_experts, "Q8_0"), *recipe.value),
        key=((eight_experts, "Q8_0"), *recipe.key),
        attention_output=((eight_experts, attention_output), *recipe.attention_output),
    )


_Q5_K_OUTPUT_OF_EIGHT = frozenset(
    {"Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS"}
)
_IQ4 = Recipe("IQ4_NL", value=((grouped, "Q5_K"),), down=((both(without_imatrix, first_eighth), "Q5_K"),))
_UNQUANTIZED = {name: Recipe(name) for name in ("F32", "BF16", "F16")}
_VERY_LOW = {
    "IQ2_M": _very_low("IQ2_S", better="IQ3_S", embedding="IQ3_S", attention_output=((always, "IQ3_S"),)),
    "IQ2_S": _very_low("IQ2_XS", better="IQ3_S", embedding="IQ3_S", attention_output=((always, "IQ3_S"),)),
    "IQ2_XS": _very_low("IQ2_XS", better="Q2_K", embedding="Q2_K"),
    "IQ2_XXS": _very_low("IQ2_XXS", better="Q2_K", embedding="Q2_K"),
    "IQ1_M": _very_low("IQ1_M", better="Q2_K", embedding="Q2_K", attention_output=((always, "IQ2_XXS"),)),
    "IQ1_S": _very_low("IQ1_S", better="Q2_K", embedding="Q2_K", attention_output=((always, "IQ2_XXS"),)),
}
_OTHERS = {
    "Q8_0": Recipe("Q8_0", output="Q8_0"),
    "Q6_K": Recipe("Q6_K"),
    "Q5_K_M": Recipe("Q5_K", value=((spread, "Q6_K"),), down=((spread, "Q6_K"),)),
    "Q5_K_S": Recipe("Q5_K"),
    "Q5_1": Recipe("Q5_1"),
    "Q5_0": Recipe("Q5_0", down=((both(with_imatrix, first_eighth), "Q5_1"),)),
    "Q4_K_M": Recipe("Q4_K", value=((spread, "Q6_K"),), down=((spread, "Q6_K"),)),
    "Q4_K_S": Recipe("Q4_K", value=((first_four, "Q5_K"),), down=((first_eighth, "Q5_K"),)),
    "Q4_1": Recipe("Q4_1"),
    "Q4_0": Recipe("Q4_0", down=((both(with_imatrix, first_eighth), "Q4_1"),)),
    "IQ4_NL": _IQ4,
    "IQ4_XS": replace(_IQ4, base="IQ4_XS"),
    "MXFP4_MOE": Recipe("MXFP4", output="Q8_0", dense="Q8_0"),
    "Q3_K_L": Recipe("Q3_K", value=((always, "Q5_K"),), attention_output=((always, "Q5_K"),), down=((always, "Q5_K"),)),
    "Q3_K_M": Recipe(
        "Q3_K",
        value=((first_two, "Q5_K"), (always, "Q4_K")),
        attention_output=((always, "Q4_K"),),
        down=((first_sixteenth, "Q5_K"), (always, "Q4_K")),
    ),
    "Q3_K_S": Recipe("Q3_K"),
    "IQ3_M": Recipe(
        "IQ3_S",
        value=((always, "Q4_K"),),
        attention_output=((always, "Q4_K"),),
        down=((either(first_eighth, both(eight_experts, spread)), "Q4_K"),),
    ),
    "IQ3_S": Recipe("IQ3_S", value=((grouped, "Q4_K"),)),
    "IQ3_XS": Recipe(
        "IQ3_S",
        value=((grouped, "Q4_K"),),
        key=((always, "IQ3_XXS"),),
        query=((always, "IQ3_XXS"),),
        up=((middle, "IQ3_XXS"),),
        gate=((middle, "IQ3_XXS"),),
    ),
    "IQ3_XXS": Recipe(
        "IQ3_XXS",
        output="Q5_K",
        embedding="IQ3_S",
        value=((grouped, "Q4_K"), (without_imatrix, "IQ3_S")),
        key=((always, "IQ2_S"),),
        query=((always, "IQ2_S"),),
        attention_output=((always, "IQ3_S"),),
        down=((with_imatrix, "IQ3_XXS"), (first_eighth, "Q4_K"), (always, "Q3_K")),
    ),
    "Q2_K": Recipe(
        "Q2_K",
        value=((grouped, "Q4_K"), (always, "Q3_K")),
        attention_output=((always, "Q3_K"),),
        down=((always, "Q3_K"),),
    ),
    "Q2_K_S": Recipe("Q2_K", value=((grouped, "Q4_K"),), down=((first_eighth, "Q4_K"),)),
    "Q2_0": Recipe("Q2_0", embedding="Q4_K"),
    "TQ2_0": Recipe("TQ2_0", embedding="Q4_K"),
    "TQ1_0": Recipe("TQ1_0", embedding="Q4_K"),
    "Q1_0": Recipe("Q1_0"),
}
RECIPES: Mapping[str, Recipe] = {
    **_UNQUANTIZED,
    **{name: _with_eight_experts(name, recipe) for name, recipe in _OTHERS.items()},
    **_VERY_LOW,
}

_FALCON_DOWN: Mapping[str, Rule] = {
    "Q4_K_M": ((first_sixteenth, "Q6_K"), (spread, "Q5_K")),
    "Q4_K_S": (),
    "Q3_K_L": ((always, "Q4_K"),),
    "Q3_K_M": ((first_sixteenth, "Q5_K"), (spread, "Q4_K")),
}
_FALCON_ATTENTION_OUTPUT: Mapping[str, Rule] = {"Q3_K_L": ((always, "Q4_K"),)}


def _for_falcon(name: str, recipe: Recipe) -> Recipe:
    return replace(
        recipe,
        output="Q8_0",
        attention_output=_FALCON_ATTENTION_OUTPUT.get(name, ()) if name in _OTHERS else recipe.attention_output,
        down=_FALCON_DOWN.get(name, recipe.down),
    )


RECIPES_OF: Mapping[str, Mapping[str, Recipe]] = {
    "falcon": {name: _for_falcon(name, recipe) for name, recipe in RECIPES.items()}
}
"""By architecture, for those that have mixtures of their own."""
EXPERT_ROLES_OF: Mapping[str, frozenset[Role]] = {"bailingmoe3": frozenset({Role.UP, Role.GATE, Role.DOWN})}
"""By architecture: the only roles whose three-dimensional tensors are stacks of experts."""

ALIASES: Mapping[str, str] = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
FILE_TYPES: Mapping[str, str] = {name: recipe.base for name, recipe in RECIPES.items()}
"""Every quantization that llama-quantize makes, and the type that most of its tensors get. Roughly from large to small
within a family."""
