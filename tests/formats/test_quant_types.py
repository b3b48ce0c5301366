from __future__ import annotations

import pytest

from bendi.formats import TENSOR_TYPES, TENSOR_TYPES_BY_NAME, file_type_name
from bendi.formats.quant_types import FILE_TYPES, REMOVED_TENSOR_TYPES

# Bits per weight as llama.cpp's documents give them: block sizes and bytes are checked by what they lead to.
BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "I8": 8,
    "I16": 16,
    "I32": 32,
    "I64": 64,
    "Q4_0": 4.5,
    "Q4_1": 5,
    "Q5_0": 5.5,
    "Q5_1": 6,
    "Q8_0": 8.5,
    "Q8_1": 9,
    "Q2_K": 2.625,
    "Q3_K": 3.4375,
    "Q4_K": 4.5,
    "Q5_K": 5.5,
    "Q6_K": 6.5625,
    "Q8_K": 9.125,
    "IQ1_S": 1.5625,
    "IQ1_M": 1.75,
    "IQ2_XXS": 2.0625,
    "IQ2_XS": 2.3125,
    "IQ2_S": 2.5625,
    "IQ3_XXS": 3.0625,
    "IQ3_S": 3.4375,
    "IQ4_NL": 4.5,
    "IQ4_XS": 4.25,
    "TQ1_0": 1.6875,
    "TQ2_0": 2.0625,
    "MXFP4": 4.25,
    "NVFP4": 4.5,
    "Q1_0": 1.125,
    "Q2_0": 2.25,
}


def test_bits_per_weight() -> None:
    assert {kind.name: kind.bits_per_weight for kind in TENSOR_TYPES.values()} == BITS


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, "F32"), (1, "F16"), (12, "Q4_K"), (30, "BF16"), (34, "TQ1_0"), (35, "TQ2_0"), (39, "MXFP4"), (40, "NVFP4")],
)
def test_ids(number: int, name: str) -> None:
    assert TENSOR_TYPES[number].name == name
    assert TENSOR_TYPES_BY_NAME[name].id == number


def test_ids_and_names_are_unique() -> None:
    assert len(TENSOR_TYPES) == len(TENSOR_TYPES_BY_NAME) == len(BITS)
    assert not set(TENSOR_TYPES) & set(REMOVED_TENSOR_TYPES)
    assert len(set(FILE_TYPES.values())) == len(FILE_TYPES)


def test_size_of_a_row() -> None:
    # Llama 3 8B has rows of 4096 weights; in Q4_K_M they take 4096 / 256 x 144 bytes.
    assert TENSOR_TYPES_BY_NAME["Q4_K"].size_bytes(4096) == 2304


@pytest.mark.parametrize(
    ("number", "name"), [(0, "F32"), (7, "Q8_0"), (15, "Q4_K_M"), (1024 + 15, "Q4_K_M"), (38, "MXFP4_MOE")]
)
def test_file_types(number: int, name: str) -> None:
    assert file_type_name(number) == name


@pytest.mark.parametrize("number", [-1, 999, 2**32 - 1])
def test_unknown_file_type(number: int) -> None:
    assert file_type_name(number) is None
