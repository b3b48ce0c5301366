from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from gguf_bytes import STRING, U16, Gguf, Tensor, llama

from bendi.errors import ModelFileError, NotFoundError
from bendi.formats import read_gguf_split, read_model, split_paths

Write = Callable[..., list[Path]]


def part(number: int, count: int, *, tensors: int | None = None) -> Gguf:
    """Part `number` (from 0) of a model with two tensors in each part."""
    made = llama() if number == 0 else Gguf()
    made = made.with_tensors(Tensor(f"blk.{number}.a", (32, 4)), Tensor(f"blk.{number}.b"))
    made = made.add("split.no", U16, number).add("split.count", U16, count)
    return made.add("split.tensors.count", 5, 2 * count if tensors is None else tensors)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_parts(count: int = 3, **changed: Gguf) -> list[Path]:
        paths = []
        for number in range(count):
            path = tmp_path / f"big-{number + 1:05}-of-{count:05}.gguf"
            path.write_bytes(changed.get(f"part{number}", part(number, count)).build())
            paths.append(path)
        return paths

    return write_parts


@pytest.mark.parametrize("given", [0, 1, 2])
def test_any_part_leads_to_all(write: Write, given: int) -> None:
    paths = write()
    parts = read_gguf_split(paths[given])
    assert [tensor.name for gguf in parts for tensor in gguf.tensors] == [
        *("blk.0.a", "blk.0.b", "blk.1.a", "blk.1.b", "blk.2.a", "blk.2.b")
    ]
    assert split_paths(paths[given]) == tuple(paths)


def test_facts_are_of_the_whole(write: Write) -> None:
    paths = write()
    info = read_model(paths[1])
    assert info.architecture == "llama"
    assert info.parameters == 3 * (128 + 32)
    assert info.tensor_bytes == 3 * 4 * (128 + 32)
    assert info.file_size_bytes == sum(path.stat().st_size for path in paths)
    assert (info.split_no, info.split_count, info.split_tensors_count) == (0, 3, 6)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_the_missing_part_is_named(write: Write, lost: int) -> None:
    paths = write()
    paths[lost].unlink()
    with pytest.raises(ModelFileError, match=f"^{paths[lost].name} is missing: the model has 3 parts"):
        read_gguf_split(paths[(lost + 1) % 3])


def test_a_damaged_part_is_named(write: Write) -> None:
    paths = write()
    paths[2].write_bytes(paths[2].read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=f"^{paths[2].name} cannot be used: it is truncated"):
        read_gguf_split(paths[0])


def test_one_file_is_a_model_of_one_part(tmp_path: Path) -> None:
    path = tmp_path / "little.gguf"
    path.write_bytes(llama().build())
    assert len(read_gguf_split(path)) == 1
    assert split_paths(path) == (path,)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_gguf_split(tmp_path / "absent.gguf")


def test_a_part_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "renamed.gguf"
    path.write_bytes(part(1, 3).build())
    with pytest.raises(ModelFileError, match=r"part 2 of 3") as caught:
        read_gguf_split(path)
    assert "-00002-of-00003.gguf" in caught.value.hint


def test_a_part_in_the_wrong_place(write: Write) -> None:
    with pytest.raises(ModelFileError, match=r"big-00002-of-00003\.gguf is part 3 of 3"):
        read_gguf_split(write(part1=part(2, 3))[0])


def test_a_part_of_another_model(write: Write) -> None:
    with pytest.raises(ModelFileError, match=r"00002-of-00003.gguf does not belong to the same model"):
        read_gguf_split(write(part1=part(1, 3).add("general.architecture", STRING, "qwen3"))[0])


def test_tensors_that_do_not_add_up(write: Write) -> None:
    with pytest.raises(ModelFileError, match="does not belong to the same model"):
        read_gguf_split(write(part2=part(2, 3, tensors=7))[0])


def test_a_tensor_in_two_parts(write: Write) -> None:
    twice = part(1, 3).with_tensors(Tensor("blk.0.a"), Tensor("blk.1.b"))
    with pytest.raises(ModelFileError, match=r"has the tensor 'blk.0.a', which big-00001-of-00003.gguf has too"):
        read_gguf_split(write(part1=twice)[0])


@pytest.mark.parametrize("name", ["a-00000-of-00002.gguf", "a-00003-of-00002.gguf", "a-00001-of-99999.gguf"])
def test_impossible_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelFileError, match="calls itself part"):
        read_gguf_split(tmp_path / name)


def test_limits_are_for_all_parts_together(write: Write) -> None:
    """Each part alone is within the limits; a thousand such parts would not be."""
    many = [Tensor(f"t.{index}", (1,)) for index in range(20_000)]
    others = [Tensor(f"u.{index}", (1,)) for index in range(20_000)]
    paths = write(2, part0=part(0, 2).with_tensors(*many), part1=part(1, 2).with_tensors(*others))
    with pytest.raises(ModelFileError, match="has 20000 tensors; no more than 12768 are read"):
        read_gguf_split(paths[0])
