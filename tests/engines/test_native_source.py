"""The source package: real pip, a package index on loopback, and archives that are not what they should be."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bendi.engines.native_source import SourcePackage, archive_path, fetched, source_folder, unpacked
from bendi.errors import DownloadError, HashMismatch, StoreError

ROOT = "llama_tiny-1.0/vendor/llama.cpp"
FILES = {
    "llama_tiny-1.0/PKG-INFO": b"Metadata-Version: 2.1\nName: llama_tiny\nVersion: 1.0\n",
    "llama_tiny-1.0/pyproject.toml": (
        b'[build-system]\nrequires = ["scikit-build-core"]\nbuild-backend = "scikit_build_core.build"\n'
    ),
    f"{ROOT}/CMakeLists.txt": b"project(tiny)\n",
    f"{ROOT}/src/model.cpp": b"int main() {}\n",
    f"{ROOT}/models/huge.gguf": b"not needed",
}


def archive(extra: list[tuple[tarfile.TarInfo, bytes]] | None = None) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as out:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
        for member, content in extra or []:
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def package(content: bytes) -> SourcePackage:
    return SourcePackage(
        "llama-tiny", "1.0", hashlib.sha256(content).hexdigest(), len(content), ROOT, ("CMakeLists.txt", "src")
    )


@dataclass
class Index:
    """A package index (PEP 503) with one source package. `asked`: paths of the requests."""

    content: bytes
    cut_to: int | None = None
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    state = Index(archive())

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            state.asked.append(self.path)
            if self.path == "/simple/llama-tiny/":
                return self.answer("text/html", b'<a href="/files/llama_tiny-1.0.tar.gz">llama_tiny-1.0.tar.gz</a>')
            if self.path.startswith("/files/"):
                return self.answer("application/gzip", state.content, state.cut_to)
            self.send_error(404)

        def answer(self, kind: str, body: bytes, cut_to: int | None = None) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:cut_to])

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_RESUME_RETRIES", "0")
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def test_it_comes_from_the_users_index_and_runs_nothing(index: Index, tmp_path: Path) -> None:
    wanted = package(index.content)
    found = fetched(tmp_path, False, wanted)
    assert found == archive_path(tmp_path, wanted)
    assert found.read_bytes() == index.content
    assert not any("scikit" in path for path in index.asked), "its build backend is not even looked for"
    asked = len(index.asked)
    assert fetched(tmp_path, True, wanted) == found, "it is here: offline is enough"
    assert len(index.asked) == asked


def test_a_wrong_hash_is_refused(index: Index, tmp_path: Path) -> None:
    wanted = package(b"something else")
    with pytest.raises(HashMismatch) as caught:
        fetched(tmp_path, False, wanted)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_cut_download_is_refused(index: Index, tmp_path: Path) -> None:
    index.cut_to = len(index.content) // 2
    with pytest.raises((DownloadError, HashMismatch)):
        fetched(tmp_path, False, package(index.content))
    assert list(tmp_path.iterdir()) == []


def test_an_index_without_it_is_an_error(index: Index, tmp_path: Path) -> None:
    other = SourcePackage("llama-absent", "9.9", "0" * 64, 10, ROOT, ())
    with pytest.raises(DownloadError) as caught:
        fetched(tmp_path, False, other)
    assert "pip" in caught.value.message + caught.value.hint


def test_offline_fetches_nothing(index: Index, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        fetched(tmp_path, True, package(index.content))
    assert "BENDI_OFFLINE=0" in caught.value.hint
    assert index.asked == []


def test_only_what_a_build_needs_is_unpacked(tmp_path: Path) -> None:
    content = archive()
    wanted = package(content)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    place = unpacked(path, tmp_path, wanted)
    assert place == source_folder(tmp_path, wanted)
    files = {found.relative_to(place).as_posix() for found in place.rglob("*") if found.is_file()}
    assert files == {"CMakeLists.txt", "src/model.cpp", ".complete"}
    path.unlink()
    assert unpacked(path, tmp_path, wanted) == place, "it is not unpacked twice"


def test_an_interrupted_unpacking_starts_anew(tmp_path: Path) -> None:
    content = archive()
    wanted = package(content)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    left = source_folder(tmp_path, wanted)
    (left / "src").mkdir(parents=True)
    (left / "src" / "model.cpp").write_bytes(b"int ma")
    assert (unpacked(path, tmp_path, wanted) / "src" / "model.cpp").read_bytes() == b"int main() {}\n"


@pytest.mark.parametrize(
    "name", ["../../outside", "/outside", f"{ROOT}/src/../../../../outside", f"{ROOT}/../../outside"]
)
def test_nothing_is_written_outside(name: str, tmp_path: Path) -> None:
    content = archive([(tarfile.TarInfo(name), b"evil")])
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    unpacked(path, folder, package(content))
    assert not any(found.name == "outside" for found in tmp_path.rglob("*"))
    assert not Path("/outside").exists()


def test_links_are_left_out(tmp_path: Path) -> None:
    link = tarfile.TarInfo(f"{ROOT}/src/passwords")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    content = archive([(link, b"")])
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    assert not (unpacked(path, tmp_path, package(content)) / "src" / "passwords").is_symlink()


def test_a_damaged_archive_is_explained(tmp_path: Path) -> None:
    content = archive()
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError) as caught:
        unpacked(path, tmp_path, package(content))
    assert str(path) in caught.value.hint
