"""Pulls from servers and disks that fail: no corrupt model, no good one lost, nothing sent to the wrong host."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from pulling import IMPATIENT, Puller, everything
from servers import Fault, FileServer, HubServer, ModelScopeServer, OllamaRegistryServer, Start
from tiny import gguf, sha256, split_gguf

from bendi.errors import DownloadError, HashMismatch, ModelFileError, NotFoundError, StoreError
from bendi.store.download import fetch
from bendi.store.install import place
from bendi.store.journal import journal_path, part_path, read_journal, total_bytes
from bendi.store.remote import RemoteFile
from bendi.store.transport import Transport, certificates
from small_disk import mounted

REPO = "org/Tiny-GGUF"
NAME = f"hf:{REPO}:Q4_K_M"


@pytest.fixture
def cdn(start: Start) -> FileServer:
    return start(FileServer(host="localhost"))


@pytest.fixture
def hub(start, cdn: FileServer, puller: Puller) -> HubServer:
    server = start(HubServer(cdn))
    puller.use(hf_endpoint=server.url)
    server.repos[REPO] = {"Tiny-Q4_K_M.gguf": gguf(40_000, 1)}
    return server


@pytest.fixture
def content(hub: HubServer) -> bytes:
    return hub.repos[REPO]["Tiny-Q4_K_M.gguf"]


def target(puller: Puller) -> Path:
    return puller.store.root / "hf" / "org" / "Tiny-GGUF" / "Tiny-Q4_K_M.gguf"


def nothing_installed(puller: Puller) -> bool:
    return not target(puller).exists() and puller.store.find(NAME) is None


# Breaks


def test_cut_at_every_byte_then_resumed_at_that_byte(start: Start, tmp_path: Path) -> None:
    """The server hangs up after n bytes; the next run asks for exactly the rest."""
    server = start(FileServer())
    content = gguf(32, 3)
    file = RemoteFile(server.put("/m.gguf", content), "m.gguf", len(content), sha256(content))
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        target = Path(folder, "m.gguf")
        for cut in range(len(content)):
            server.seen.clear()
            server.faults = [Fault(cut_after=cut)]
            with Transport(options=replace(IMPATIENT, attempts=1)) as transport:
                with pytest.raises(DownloadError):
                    fetch(file, target, transport, lambda _done, _phase: None)
                assert not target.exists()
                fetch(file, target, transport, lambda _done, _phase: None)
                place(target)
            assert target.read_bytes() == content
            assert [seen.headers["range"] for seen in server.seen] == [
                f"bytes=0-{len(content) - 1}", f"bytes={cut}-{len(content) - 1}",
            ]  # fmt: skip
            target.unlink()


def test_cuts_in_one_run_are_mended_at_once(hub: HubServer, cdn: FileServer, puller: Puller, content: bytes) -> None:
    cdn.faults = [Fault(cut_after=n) for n in (0, 1, 1000, 4095, 7, 2000)]
    assert puller(NAME, connections=1).model.path.read_bytes() == content
    assert cdn.body_bytes <= len(content) + 4096


def test_parallel_pieces_with_cuts(hub: HubServer, cdn: FileServer, puller: Puller, content: bytes) -> None:
    cdn.faults = [Fault(cut_after=n) for n in (100, 3000, 0, 5, 4000, 1, 2, 3)]
    assert puller(NAME, connections=4, piece_bytes=3000).model.path.read_bytes() == content
    starts = [int(re.findall(r"\d+", seen.headers["range"])[0]) for seen in cdn.seen]
    assert len(set(starts)) > 10


def test_a_server_that_never_gives_a_byte_is_given_up(hub: HubServer, cdn: FileServer, puller: Puller) -> None:
    cdn.faults = [Fault(cut_after=0, times=-1)]
    with pytest.raises(DownloadError) as caught:
        puller(NAME)
    assert "same command again" in caught.value.hint
    assert len(cdn.seen) == puller.options.attempts
    assert nothing_installed(puller)


def test_a_server_without_ranges_that_always_breaks_is_given_up(
    hub: HubServer, cdn: FileServer, puller: Puller
) -> None:
    cdn.faults = [Fault(no_ranges=True, cut_after=20_000, times=-1)]
    with pytest.raises(DownloadError):
        puller(NAME)
    assert len(cdn.seen) <= puller.options.attempts + 1


def test_silence_is_a_break(hub: HubServer, cdn: FileServer, puller: Puller, content: bytes) -> None:
    cdn.faults = [Fault(stall_s=30)]
    assert puller(NAME).model.path.read_bytes() == content


def test_silence_for_ever_is_an_error(hub: HubServer, cdn: FileServer, puller: Puller) -> None:
    cdn.faults = [Fault(stall_s=30, times=-1)]
    with pytest.raises(DownloadError, match="does not answer"):
        puller(NAME, attempts=2)
    assert nothing_installed(puller)


def test_a_server_that_does_not_exist(puller: Puller) -> None:
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9"):
        puller(NAME)


def test_a_resumed_part_that_is_damaged_is_loaded_again(
    hub: HubServer, cdn: FileServer, puller: Puller, content: bytes
) -> None:
    cdn.faults = [Fault(cut_after=4000), Fault(cut_after=0, times=-1)]
    with pytest.raises(DownloadError):
        puller(NAME)
    part = part_path(target(puller))
    with part.open("r+b") as file:
        file.write(b"damaged")
    cdn.faults = []
    assert puller(NAME).model.path.read_bytes() == content


def test_a_server_that_forgets_how_to_send_ranges(
    hub: HubServer, cdn: FileServer, puller: Puller, content: bytes
) -> None:
    cdn.faults = [Fault(cut_after=3000), Fault(cut_after=0, times=-1)]
    with pytest.raises(DownloadError):
        puller(NAME)
    cdn.faults = [Fault(no_ranges=True, times=-1)]
    assert puller(NAME).model.path.read_bytes() == content


def test_some_servers_behind_one_name_ignore_ranges(
    hub: HubServer, cdn: FileServer, puller: Puller, content: bytes
) -> None:
    cdn.faults = [Fault(), Fault(), Fault(no_ranges=True, cut_after=9000), Fault(), Fault(no_ranges=True)]
    assert puller(NAME, connections=3).model.path.read_bytes() == content


def test_a_part_without_its_journal_is_not_trusted(
    hub: HubServer, cdn: FileServer, puller: Puller, content: bytes
) -> None:
    part = part_path(target(puller))
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * len(content))
    journal_path(target(puller)).write_text('{"format": 1, "done": [[0, 99999]], "identity": {')
    assert puller(NAME).model.path.read_bytes() == content


def test_a_journal_that_claims_more_than_there_is(
    hub: HubServer, cdn: FileServer, puller: Puller, content: bytes
) -> None:
    cdn.faults = [Fault(cut_after=4000), Fault(cut_after=0, times=-1)]
    with pytest.raises(DownloadError):
        puller(NAME, connections=1)
    part = part_path(target(puller))
    with part.open("r+b") as file:
        file.truncate(100)
    cdn.faults = []
    cdn.seen.clear()
    assert puller(NAME, connections=1).model.path.read_bytes() == content
    assert cdn.seen[0].headers["range"].startswith("bytes=100-")


# Lies


def test_a_wrong_hash_installs_nothing_and_leaves_nothing(
    hub: HubServer, cdn: FileServer, puller: Puller, content: bytes
) -> None:
    cdn.faults = [Fault(flip=30_000, times=-1)]
    with pytest.raises(HashMismatch):
        puller(NAME)
    assert nothing_installed(puller)
    assert not part_path(target(puller)).exists()
    cdn.faults = []
    assert puller(NAME).model.path.read_bytes() == content


def test_a_wrong_hash_in_an_update_leaves_the_good_model(
    hub: HubServer, cdn: FileServer, puller: Puller, content: bytes
) -> None:
    puller(NAME)
    hub.repos[REPO]["Tiny-Q4_K_M.gguf"] = gguf(41_000, 2)
    cdn.faults = [Fault(flip=30_000, times=-1)]
    with pytest.raises(HashMismatch):
        puller(NAME)
    assert puller.store.resolve(NAME).path.read_bytes() == content


@pytest.mark.parametrize(
    "fault",
    [
        Fault(lie_bytes=5, no_ranges=True, times=-1),
        Fault(lie_bytes=-5, no_ranges=True, times=-1),
        Fault(lie_bytes=-5, cut_after=0, times=-1),
        Fault(lie_total=5, times=-1),
        Fault(lie_total=-5, times=-1),
        Fault(shift=1, times=-1),
        Fault(encoding="gzip", times=-1),
        Fault(encoding="br", times=-1),
        Fault(status=416, times=-1),
        Fault(status=204, times=-1),
    ],
    ids=str,
)
def test_lies_of_a_server_are_errors(hub: HubServer, cdn: FileServer, puller: Puller, fault: Fault) -> None:
    cdn.faults = [fault]
    with pytest.raises(DownloadError):
        puller(NAME)
    assert nothing_installed(puller)


@pytest.mark.parametrize("lie_bytes", [5, -5])
def test_a_wrong_length_of_a_piece_costs_a_request_and_no_more(
    hub: HubServer, cdn: FileServer, puller: Puller, content: bytes, lie_bytes: int
) -> None:
    """The range that is sent says what the bytes are; the hash says that they are right."""
    cdn.faults = [Fault(lie_bytes=lie_bytes, times=3)]
    assert puller(NAME).model.path.read_bytes() == content


def test_a_list_that_lies_about_the_size(hub: HubServer, puller: Puller, content: bytes) -> None:
    for size in (len(content) - 1, len(content) + 1):
        hub.sizes["Tiny-Q4_K_M.gguf"] = size
        with pytest.raises(DownloadError, match="were promised"):
            puller(NAME)
        assert nothing_installed(puller)


@pytest.mark.parametrize("no_ranges", [True, False])
@pytest.mark.parametrize("more", [-50, -1, 1, 50])
def test_a_list_that_lies_about_the_size_and_a_server_that_says_nothing(
    hub: HubServer, cdn: FileServer, puller: Puller, content: bytes, no_ranges: bool, more: int
) -> None:
    hub.sizes["Tiny-Q4_K_M.gguf"] = len(content) + more
    cdn.faults = [Fault(no_length=True, no_ranges=no_ranges, times=-1)]
    with pytest.raises(StoreError):
        puller(NAME)
    assert nothing_installed(puller)


@pytest.mark.parametrize("size", [-1, 0, 2**63, 1.5, "100", True, None])
def test_absurd_sizes_are_refused(hub: HubServer, puller: Puller, size: object) -> None:
    hub.sizes["Tiny-Q4_K_M.gguf"] = size
    with pytest.raises(DownloadError, match="refused"):
        puller(NAME)
    assert everything(puller.store.root) == set()


def test_absurd_sizes_of_a_manifest_are_refused(start: Start, puller: Puller) -> None:
    server = start(OllamaRegistryServer())
    manifest = server.add("library/tiny:latest", {"model": gguf(100)})
    puller.use(ollama_registry=server.url)
    for size in (-5, 2**60, "9", None):
        manifest["layers"][0]["size"] = size
        with pytest.raises(DownloadError):
            puller("ollama:tiny")


@pytest.mark.parametrize("digest", ["sha256:../../../../etc/x", "sha256-" + "a" * 64, "sha256:" + "A" * 64, "", "x"])
def test_bad_digests_are_refused(start: Start, puller: Puller, digest: str) -> None:
    server = start(OllamaRegistryServer())
    manifest = server.add("library/tiny:latest", {"model": gguf(100)})
    manifest["layers"][0]["digest"] = digest
    puller.use(ollama_registry=server.url)
    with pytest.raises(DownloadError, match="protocol"):
        puller("ollama:tiny")


@pytest.mark.parametrize(
    "path",
    ["../../x.gguf", "/etc/x.gguf", "a/../../x.gguf", "a\\..\\x.gguf", "C:/x.gguf", "a//x.gguf", "NUL.gguf", "./x.gguf",
     "x\u202efgug.gguf", "a\n.gguf", "~/x.gguf", "x" * 300 + ".gguf"],
)  # fmt: skip
def test_a_list_with_a_path_that_leaves_its_folder_is_refused(
    hub: HubServer, start: Start, puller: Puller, path: str
) -> None:
    hub.extra_entries = [{"type": "file", "path": path, "size": 10, "lfs": {"oid": "0" * 64, "size": 10}}]
    with pytest.raises(DownloadError, match="refused"):
        puller(NAME)
    scope = start(ModelScopeServer())
    scope.repos[REPO] = {"Tiny-Q4_K_M.gguf": gguf(10), path: b"x"}
    puller.use(ms_endpoint=scope.url)
    with pytest.raises(DownloadError, match="refused"):
        puller(f"ms:{REPO}")
    assert everything(puller.store.root) == set()


def test_something_that_is_no_model_is_set_aside(hub: HubServer, cdn: FileServer, puller: Puller) -> None:
    hub.repos[REPO]["Tiny-Q4_K_M.gguf"] = b"<html>please log in</html>" * 10
    with pytest.raises(ModelFileError) as caught:
        puller(NAME)
    aside = target(puller).with_name("Tiny-Q4_K_M.gguf.rejected")
    assert str(aside) in caught.value.hint
    assert aside.read_bytes().startswith(b"<html>")
    assert nothing_installed(puller)


def test_something_that_is_no_model_does_not_replace_one(
    hub: HubServer, cdn: FileServer, puller: Puller, content: bytes
) -> None:
    puller(NAME)
    hub.repos[REPO]["Tiny-Q4_K_M.gguf"] = b"GGUF" + b"\xff" * 500
    with pytest.raises(ModelFileError):
        puller(NAME)
    assert puller.store.resolve(NAME).path.read_bytes() == content


def test_an_answer_that_is_no_json(start: Start, puller: Puller) -> None:
    server = start(FileServer())
    server.put("/api/models/org/Tiny-GGUF/revision/main", b"<html>welcome to the airport</html>")
    puller.use(hf_endpoint=server.url)
    with pytest.raises(DownloadError, match="protocol"):
        puller(NAME)


# Files that change


def test_a_url_that_changes_between_two_runs_is_never_mixed(start: Start, puller: Puller) -> None:
    server = start(FileServer())
    url = server.put("/m.gguf", gguf(20_000, 1), etag='"one"')
    server.faults = [Fault(), Fault(cut_after=3000), Fault(cut_after=0, times=-1)]
    with pytest.raises(DownloadError):
        puller(url)
    server.faults = []
    server.put("/m.gguf", gguf(20_000, 2), etag='"two"')
    assert puller(url).model.path.read_bytes() == gguf(20_000, 2)


@pytest.mark.parametrize("validators", [{"etag": '"one"'}, {"last_modified": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}])
def test_a_url_that_changes_in_the_middle_is_never_mixed(
    start: Start, puller: Puller, validators: dict[str, str]
) -> None:
    old, new = gguf(40_000, 1), gguf(40_000, 2)
    changed = {name: value.replace("one", "two").replace("21", "22") for name, value in validators.items()}

    class Changing(FileServer):
        def route(self, request, path, query):
            if len(self.seen) == 4:
                self.put("/m.gguf", new, **changed)
            super().route(request, path, query)

    server = start(Changing())
    url = server.put("/m.gguf", old, **validators)
    server.faults = [Fault(), Fault(cut_after=3000), Fault(cut_after=2500)]
    assert puller(url, connections=1).model.path.read_bytes() == new


def test_a_url_that_never_stops_changing(start: Start, puller: Puller) -> None:
    class Changing(FileServer):
        def route(self, request, path, query):
            self.put("/m.gguf", gguf(40_000, len(self.seen)), etag=f'"{len(self.seen)}"')
            super().route(request, path, query)

    server = start(Changing())
    with pytest.raises(DownloadError, match="keeps changing"):
        puller(server.put("/m.gguf", b"x", etag='"x"'))


def test_a_hub_file_that_changes_between_two_runs_is_never_mixed(
    hub: HubServer, cdn: FileServer, puller: Puller
) -> None:
    cdn.faults = [Fault(cut_after=3000), Fault(cut_after=0, times=-1)]
    with pytest.raises(DownloadError):
        puller(NAME)
    cdn.faults = []
    hub.repos[REPO]["Tiny-Q4_K_M.gguf"] = new = gguf(40_000, 2)
    assert puller(NAME).model.path.read_bytes() == new


# Statuses


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
def test_a_busy_server_is_asked_again(
    hub: HubServer, cdn: FileServer, puller: Puller, content: bytes, status: int
) -> None:
    hub.faults = [Fault("/tree/", status=status), Fault("/resolve/", status=status)]
    cdn.faults = [Fault(status=status, headers={"Retry-After": "0"})]
    assert puller(NAME).model.path.read_bytes() == content


def test_retry_after_is_obeyed_and_has_a_limit(hub: HubServer, puller: Puller) -> None:
    hub.faults = [Fault(status=429, headers={"Retry-After": "3600"}, times=-1)]
    with pytest.raises(DownloadError, match="come back in 1:00:00"):
        puller(NAME)
    assert len(hub.seen) == 1
    moment = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    hub.faults = [Fault("/resolve/", status=503, headers={"Retry-After": moment}, times=-1)]
    with pytest.raises(DownloadError, match="come back in"):
        puller(NAME)


def test_fewer_connections_than_we_would_like(
    start: Start, hub: HubServer, cdn: FileServer, puller: Puller, content: bytes
) -> None:
    """A server that serves one at a time and says 429 to the others still gives the whole file."""

    class Strict(FileServer):
        active = 0

        def route(self, request, path, query):
            if self.active:
                request.answer(429, b"one at a time")
                return
            self.active += 1
            try:
                super().route(request, path, query)
            finally:
                self.active -= 1

    hub.cdn = start(Strict())
    hub.cdn.faults = [Fault(slow_s=0.01, times=-1)]
    assert puller(NAME, connections=4, attempts=2, backoff_s=0.001).model.path.read_bytes() == content


@pytest.mark.parametrize(("status", "kind"), [(404, NotFoundError), (410, NotFoundError), (401, DownloadError),
                                              (403, DownloadError), (400, DownloadError)])  # fmt: skip
def test_definite_answers_are_not_asked_again(
    hub: HubServer, cdn: FileServer, puller: Puller, status: int, kind: type[Exception]
) -> None:
    cdn.faults = [Fault(status=status, times=-1)]
    with pytest.raises(kind):
        puller(NAME)
    assert len(cdn.seen) == 1
    assert nothing_installed(puller)


# Where a token goes


def test_the_token_goes_to_its_own_host_only(hub: HubServer, cdn: FileServer, puller: Puller, start: Start) -> None:
    hub.token = "hf_secret"
    puller.use(hf_token="hf_secret", ms_token="ms_secret")
    puller(NAME)
    assert {seen.authorization for seen in hub.seen} == {"Bearer hf_secret"}
    assert {seen.authorization for seen in cdn.seen} == {None}


def test_the_token_does_not_go_to_another_port_of_the_same_host(
    hub: HubServer, start: Start, puller: Puller, content: bytes
) -> None:
    hub.cdn = start(FileServer())
    puller.use(hf_token="hf_secret")
    puller(NAME)
    assert {seen.authorization for seen in hub.cdn.seen} == {None}


def test_tokens_are_not_mixed_up(hub: HubServer, start: Start, puller: Puller, content: bytes) -> None:
    scope = start(ModelScopeServer())
    registry = start(OllamaRegistryServer())
    scope.repos[REPO] = {"m-Q4_K_M.gguf": gguf(100)}
    registry.add("library/tiny:latest", {"model": gguf(100)})
    puller.use(hf_token="hf_secret", ms_token="ms_secret", ms_endpoint=scope.url, ollama_registry=registry.url)
    for name in (NAME, f"ms:{REPO}", "ollama:tiny"):
        puller(name)
    assert {seen.authorization for seen in scope.seen} == {"Bearer ms_secret"}
    assert {seen.authorization for seen in registry.seen} == {None}


def test_a_redirect_of_the_list_does_not_take_the_token_along(hub: HubServer, start: Start, puller: Puller) -> None:
    other = start(HubServer(host="localhost"))
    other.repos = hub.repos
    puller.use(hf_token="hf_secret")
    hub.faults = [Fault("/api/", redirect=f"{other.url}/api/models/{REPO}/revision/main")]
    puller(NAME)
    assert {seen.authorization for seen in other.seen} == {None}


def test_plain_http_to_another_machine_gets_no_token() -> None:
    from bendi.store.transport import Transport

    class Probe(Transport):
        pass

    with Probe({"http://example.invalid": "secret", "https://example.invalid": "secret"}) as transport:
        assert transport.authorization("http://example.invalid/x") is None
        assert transport.authorization("https://example.invalid/x") == "Bearer secret"
        assert transport.authorization("https://example.invalid:444/x") is None
        assert transport.authorization("https://example.invalid.evil/x") is None


def test_a_challenge_of_a_registry_is_never_followed(start: Start, puller: Puller) -> None:
    evil = start(FileServer(host="localhost"))
    registry = start(OllamaRegistryServer())
    registry.challenge = f'Bearer realm="{evil.url}/token",service="x",scope="y"'
    puller.use(ollama_registry=registry.url, hf_token="hf_secret")
    with pytest.raises(DownloadError, match="wants a login"):
        puller("ollama:tiny")
    assert evil.seen == []


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://example.invalid/x", "http://user:pw@localhost/x", "gopher://x"]
)
def test_redirects_to_odd_places_are_refused(hub: HubServer, puller: Puller, location: str) -> None:
    hub.faults = [Fault("/resolve/", redirect=location)]
    with pytest.raises(DownloadError, match="redirects"):
        puller(NAME)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate for `localhost` that nobody has signed."""
    key, path = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", path]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no certificate can be made here: {error}")
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


def test_a_server_that_cannot_prove_who_it_is(start: Start, puller: Puller, certificate: Path) -> None:
    server = start(FileServer("localhost", certificate))
    puller.use(hf_endpoint=server.url, hf_token="secret")
    with pytest.raises(DownloadError, match="identity") as caught:
        puller(NAME)
    assert "SSL_CERT_FILE" in caught.value.hint
    assert server.seen == []


def test_encryption_is_not_given_up_by_a_redirect(
    start: Start, puller: Puller, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(FileServer("localhost", certificate))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    certificates.cache_clear()
    try:
        url = server.put("/m.gguf", gguf(3000))
        assert puller(url).model.path.read_bytes() == gguf(3000)
        server.faults = [Fault(redirect="http://example.invalid/m.gguf")]
        with pytest.raises(DownloadError, match="unencrypted"):
            puller(url, force=True)
    finally:
        certificates.cache_clear()


def test_an_endless_redirect_ends(hub: HubServer, puller: Puller) -> None:
    hub.faults = [Fault("/resolve/", redirect=f"{hub.url}/{REPO}/resolve/main/round", times=-1)]
    with pytest.raises(DownloadError, match="circles"):
        puller(NAME)
    assert len(hub.paths("/resolve/")) == puller.options.redirects + 1


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one MiB."""
    with mounted(tmp_path / "小 disk", "1m") as folder:
        yield folder


def test_space_is_checked_before_anything_is_downloaded(
    hub: HubServer, cdn: FileServer, puller: Puller, small_disk: Path
) -> None:
    hub.repos[REPO]["Tiny-Q4_K_M.gguf"] = gguf(3_000_000)
    puller.use(models_dirs=(small_disk,))
    with pytest.raises(StoreError, match="are needed") as caught:
        puller(NAME)
    assert "BENDI_MODELS" in caught.value.hint
    assert cdn.seen == []


def test_the_reserve_stays_free(hub: HubServer, cdn: FileServer, puller: Puller, small_disk: Path) -> None:
    puller.use(models_dirs=(small_disk,))
    with pytest.raises(StoreError, match="reserve"):
        puller(NAME, disk_reserve_bytes=1_040_000)
    assert cdn.seen == []


def test_a_disk_that_fills_in_the_middle_keeps_what_arrived(
    hub: HubServer, cdn: FileServer, puller: Puller, small_disk: Path
) -> None:
    content = hub.repos[REPO]["Tiny-Q4_K_M.gguf"] = gguf(600_000)
    puller.use(models_dirs=(small_disk / "models",))
    ballast = small_disk / "ballast"

    class Filling(FileServer):
        def route(self, request, path, query):
            if len(self.seen) == 3:
                with open(ballast, "wb") as file:
                    file.write(bytes(700_000))
            super().route(request, path, query)

    with Filling() as hub.cdn:
        with pytest.raises(StoreError, match="full") as caught:
            puller(NAME, piece_bytes=50_000, connections=2)
        assert not isinstance(caught.value, DownloadError)
        assert "same command again" in caught.value.hint
        assert nothing_installed(puller)
        part = part_path(target(puller))
        assert part.stat().st_size > 0
        ballast.unlink()
        assert puller(NAME).model.path.read_bytes() == content


def test_a_folder_that_cannot_be_written(hub: HubServer, puller: Puller, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    puller.use(models_dirs=(tmp_path / "file" / "models",))
    with pytest.raises(StoreError):
        puller(NAME)


# Split models that break off


def test_an_update_of_a_split_model_that_breaks_off_leaves_the_old_one(
    hub: HubServer, cdn: FileServer, puller: Puller
) -> None:
    old, new = split_gguf(2, 9000, 1), split_gguf(2, 9000, 2)
    names = [f"big-{n:05d}-of-00002.gguf" for n in (1, 2)]
    hub.repos["org/Big"] = dict(zip(names, old, strict=True))
    puller("hf:org/Big")
    hub.repos["org/Big"] = dict(zip(names, new, strict=True))
    cdn.faults = [Fault(sha256(new[1]), cut_after=0, times=-1)]
    with pytest.raises(DownloadError):
        puller("hf:org/Big")
    assert [path.read_bytes() for path in puller.store.resolve("hf:org/Big").parts] == old
    cdn.faults = []
    cdn.seen.clear()
    assert [path.read_bytes() for path in puller("hf:org/Big").model.parts] == new
    assert not cdn.paths(sha256(new[0])), "the part that had arrived and was verified is not loaded again"


def test_what_has_arrived_is_counted(hub: HubServer, cdn: FileServer, puller: Puller, content: bytes) -> None:
    cdn.faults = [Fault(cut_after=4000), Fault(cut_after=1000), Fault(cut_after=0, times=-1)]
    with pytest.raises(DownloadError):
        puller(NAME, connections=1, piece_bytes=50_000)
    journal = read_journal(journal_path(target(puller)))
    assert journal is not None
    assert total_bytes(journal.ranges) == 5000
    cdn.faults = []
    puller.progress.clear()
    puller(NAME)
    assert puller.progress[0].done_bytes == 5000
