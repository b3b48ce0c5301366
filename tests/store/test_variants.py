"""Which files make a model, and which model is meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi.errors import NotFoundError
from bendi.store.variants import Listed, Variant, choose, group, is_auxiliary, part_path, quant_label, split_of


def listed(*paths: str) -> list[Listed]:
    return [Listed(path, 1000 + number) for number, path in enumerate(paths)]


def spell(variant: Variant, by_file: bool) -> str:
    return f"hf:o/r/{variant.path}" if by_file else f"hf:o/r:{variant.label}"


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M"),
        ("x.q8_0.gguf", "Q8_0"),
        ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("m-UD_IQ2_XXS.gguf", "UD-IQ2_XXS"),
        ("qwen2.5-7b-q4_k_m-00001-of-00002.gguf", "Q4_K_M"),
        ("BF16/model-00001-of-00004.gguf", "BF16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("Next-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("Phi-3-mini-4k-instruct-fp16.gguf", "FP16"),
        ("flux-f16-q8_0.gguf", "Q8_0"),
        ("Qwen3.gguf", ""),
        ("model.gguf", ""),
        ("Q4ever.gguf", ""),
    ],
)
def test_labels(path: str, label: str) -> None:
    assert quant_label(path) == label


@given(st.text("ab/-", min_size=1, max_size=8), st.integers(1, 1000), st.integers(1, 1000))
def test_parts_are_named_as_they_are_read(stem: str, number: int, count: int) -> None:
    expected = (stem, number, count) if number <= count else None
    assert split_of(part_path(stem, number, count)) == expected


file_names = st.text("abQ4_K-./", min_size=1, max_size=12).map(lambda text: f"{text}.gguf")


@given(st.lists(file_names, unique=True, max_size=8))
def test_every_file_is_in_one_variant(paths: list[str]) -> None:
    complete, incomplete = group(listed(*paths))
    grouped = [file.path for variant in (*complete, *incomplete) for file in variant.files]
    assert sorted(grouped) == sorted(path for path in paths if not is_auxiliary(path))


@pytest.mark.parametrize(
    ("paths", "quant", "chosen"),
    [
        (("a-Q8_0.gguf", "a-Q4_K_M.gguf"), None, "a-Q4_K_M.gguf"),
        (("a-Q8_0.gguf", "a-Q5_K_M.gguf"), None, "a-Q5_K_M.gguf"),
        (("a-Q2_K.gguf", "a-Q3_K_M.gguf"), None, "a-Q2_K.gguf"),
        (("a-UD-Q4_K_XL.gguf", "a-Q8_0.gguf"), "Q4_K_XL", "a-UD-Q4_K_XL.gguf"),
        (("a-UD-Q4_K_M.gguf", "a-Q4_K_M.gguf"), "Q4_K_M", "a-Q4_K_M.gguf"),
        (("a.gguf", "mmproj-a.gguf", "imatrix.gguf", "mtp-a.gguf"), None, "a.gguf"),
        (("a-Q4_K_M-00001-of-00002.gguf", "a-Q8_0.gguf"), None, "a-Q8_0.gguf"),
    ],
)
def test_choice(paths: tuple[str, ...], quant: str | None, chosen: str) -> None:
    assert choose(listed(*paths), quant, None, spell).path == chosen


@pytest.mark.parametrize(
    ("paths", "quant", "file", "hint"),
    [
        (("a-Q4_K_M.gguf", "b-Q4_K_M.gguf"), "Q4_K_M", None, "bendi pull hf:o/r/a-Q4_K_M.gguf"),
        (("a.gguf", "b.gguf"), None, None, "bendi pull hf:o/r/b.gguf"),
        (("a-Q8_0.gguf",), "Q4_K_M", None, "bendi pull hf:o/r:Q8_0    1000 B"),
        (("a-Q8_0.gguf",), None, "a-Q9_0.gguf", "a-Q8_0.gguf"),
        (("a b-Q8_0.gguf", "c-Q8_0.gguf"), None, None, "bendi pull 'hf:o/r/a b-Q8_0.gguf'"),
        ((), None, None, "GGUF"),
    ],
)
def test_no_choice_says_what_could_be_typed(
    paths: tuple[str, ...], quant: str | None, file: str | None, hint: str
) -> None:
    with pytest.raises(NotFoundError) as caught:
        choose(listed(*paths), quant, file, spell)
    assert hint in caught.value.hint
