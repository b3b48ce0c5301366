"""Names: every good one has one spelling that reads back, no bad one becomes a path."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi.errors import UsageError
from bendi.store.names import (
    AliasName,
    ModelName,
    OllamaName,
    PathName,
    RepoName,
    UrlName,
    format_name,
    is_safe_component,
    is_safe_path,
    parse_name,
    safe_component,
    store_folder,
    typed,
)

LETTERS = "abcXYZ019"
word = st.text(LETTERS, min_size=1, max_size=8)
repo_part = st.builds("{}{}{}".format, word, st.sampled_from(["", "-", ".", "_", "-GGUF."]), word).filter(
    lambda text: is_safe_component(text) and not text.lower().endswith(".gguf")
)
file_part = st.text(LETTERS + "-_ ().模型é", min_size=1, max_size=12).filter(is_safe_component)
file_path = st.builds(
    lambda parts, last: "/".join([*parts, f"{last}.gguf"]), st.lists(file_part, max_size=3), file_part
)
revision = st.one_of(st.none(), word, st.just("refs/pr/12"), st.just("v1.0-rc_2")).filter(
    lambda text: text not in ("main", "master")
)
quant = st.one_of(st.none(), st.sampled_from(["Q4_K_M", "UD-Q4_K_XL", "F16", "IQ2_XXS"]))
repos = st.one_of(
    st.builds(RepoName, st.sampled_from(["hf", "ms"]), repo_part, repo_part, quant, st.none(), revision),
    st.builds(RepoName, st.sampled_from(["hf", "ms"]), repo_part, repo_part, st.none(), file_path, revision),
)
hosts = st.one_of(st.none(), st.sampled_from(["hf.co", "localhost:8080", "registry.example.org"]))
ollamas = st.builds(OllamaName, repo_part, word.filter(is_safe_component), st.just("library") | repo_part, hosts)
urls = st.builds(
    lambda host, path, sha: UrlName(f"https://{host}/{path}/m.gguf", sha),
    st.sampled_from(["example.org", "127.0.0.1:8080", "xn--fiq228c.example"]),
    st.text(LETTERS + "-_", min_size=1),
    st.none() | st.just("0a" * 32),
)
path_part = st.text(LETTERS + " .~:@模型", min_size=1).filter(str.strip)
paths = st.builds(lambda parts: PathName(Path(*parts)), st.lists(path_part, min_size=1)).filter(
    lambda name: str(name.path) == str(name.path).strip()
)
aliases = st.one_of(
    st.builds(AliasName, st.text("abc019千问", min_size=1)),
    st.builds(lambda a, b, q: AliasName(f"{a}:{b}", q), word.map(str.lower), word.map(str.lower), quant).filter(
        lambda name: name.alias.split(":")[0] not in ("hf", "ms", "ollama", "http", "https")
    ),
)


@given(st.one_of(repos, ollamas, urls, paths, aliases))
def test_every_name_reads_back(name: ModelName) -> None:
    assert parse_name(format_name(name)) == name


@given(st.text() | st.builds("{}:{}".format, st.sampled_from(["hf", "ms", "ollama", "https", "x"]), st.text()))
def test_any_text_is_a_name_or_a_usage_error(text: str) -> None:
    try:
        name = parse_name(text)
    except UsageError as error:
        assert error.message
        return
    assert parse_name(format_name(name)) == name


HOSTILE = st.text(st.sampled_from("./\\:~@ \0\n\u202eabAUXcon2%"), max_size=24)


SOURCES = st.sampled_from(["hf", "ms", "ollama"])
SEPARATORS = st.sampled_from(["", "/", ":", "@"])


@given(
    st.builds("{}:{}/{}{}{}".format, SOURCES, HOSTILE, HOSTILE, SEPARATORS, HOSTILE)
    | st.builds("https://h/{}/x.gguf".format, HOSTILE)
)
def test_no_name_leads_out_of_the_store(text: str) -> None:
    try:
        name = parse_name(text)
    except UsageError:
        return
    if isinstance(name, RepoName | OllamaName | UrlName):
        folder = store_folder(name)
        assert not folder.is_absolute()
        assert all(is_safe_component(part) for part in folder.parts)
        assert not PureWindowsPath(*folder.parts).is_absolute()
        root = Path("/root/store")
        assert (root / folder).resolve().is_relative_to(root)
    if isinstance(name, RepoName) and name.file:
        assert is_safe_path(name.file)


@given(st.text())
def test_safe_component_is_safe(text: str) -> None:
    assert is_safe_component(safe_component(text))


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a/b", "a\\b", "a\0", "con", "NUL.gguf", "com1.x", "a.", "a ", " a", "~a", "x" * 221, "模" * 80,
     "a\u202eb", "a\nb", 'a"b', "a|b", "a?b", "\ud800"],
)  # fmt: skip
def test_components_that_are_not_safe(text: str) -> None:
    assert not is_safe_component(text)


@pytest.mark.parametrize("text", ["模型 文件.gguf", "a.b-c_d", "console", "x" * 220, "~a"[1:], "Q4_K_M", "(1) a.gguf"])
def test_components_that_are_safe(text: str) -> None:
    assert is_safe_component(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hf:Qwen/Qwen3-8B-GGUF", RepoName("hf", "Qwen", "Qwen3-8B-GGUF")),
        ("HF:a/b:q4_k_m", RepoName("hf", "a", "b", "Q4_K_M")),
        ("hf:a/b:x-q4.gguf", RepoName("hf", "a", "b", None, "x-q4.gguf")),
        ("hf:a/b/子 夹/模型.gguf@abc", RepoName("hf", "a", "b", None, "子 夹/模型.gguf", "abc")),
        ("hf:a/b@main", RepoName("hf", "a", "b")),
        ("ms:a/b@master", RepoName("ms", "a", "b")),
        ("hf.co/a/b:Q8_0", RepoName("hf", "a", "b", "Q8_0")),
        ("https://huggingface.co/a/b/resolve/main/x.gguf?download=true", RepoName("hf", "a", "b", None, "x.gguf")),
        ("https://huggingface.co/a/b/blob/v2/x.gguf", RepoName("hf", "a", "b", None, "x.gguf", "v2")),
        ("https://huggingface.co/a/b", RepoName("hf", "a", "b")),
        ("https://modelscope.cn/models/a/b/resolve/master/x.gguf", RepoName("ms", "a", "b", None, "x.gguf")),
        ("ollama:qwen3", OllamaName("qwen3")),
        ("ollama:hf.co/a/b:Q4", OllamaName("b", "Q4", "a", "hf.co")),
        ("qwen3:8b", AliasName("qwen3:8b")),
        ("Qwen3:8B:q8_0", AliasName("qwen3:8b", "Q8_0")),
        ("千问", AliasName("千问")),
        ("model.gguf", PathName(Path("model.gguf"))),
        ("./model", PathName(Path("model"))),
        ("C:\\models\\x.gguf", PathName(Path("C:\\models\\x.gguf"))),
        ("HTTP://Example.ORG/A.gguf", UrlName("http://example.org/A.gguf")),
    ],
)
def test_spellings(text: str, name: ModelName) -> None:
    assert parse_name(text) == name


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("org/repo", "hf:org/repo"),
        ("hg:org/repo", "hf:org/repo"),
        ("huggingface:org/repo", "hf:org/repo"),
        ("modelscop:org/repo", "ms:org/repo"),
        ("olama:x/y", "ollama:x/y"),
        ("hf:org/repo/file.bin", "bendi pull --list hf:org/repo"),
        ("https://example.org/x.bin", "must end in the name of a .gguf file"),
        ("", "hf:org/repo"),
    ],
)
def test_a_wrong_name_says_how_it_could_be_right(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_name(text)
    assert hint in f"{caught.value.message} {caught.value.hint}"


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse_name("https://user:topsecret@example.org/x.gguf")
    assert "topsecret" not in caught.value.message + caught.value.hint


def test_home_is_expanded_once() -> None:
    assert parse_name("~/x.gguf") == PathName(Path.home() / "x.gguf")
    assert parse_name("./~x.gguf") == PathName(Path("~x.gguf"))


@given(st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_typed_survives_a_shell(text: str) -> None:
    quoted = typed(text)
    if quoted != text:
        assert quoted.startswith("'") and quoted.endswith("'")
        assert quoted[1:-1].replace("'\\''", "").count("'") == 0
    else:
        assert not set(text) & set(" '\"$`&;|<>()*?[]!#\n\t")
