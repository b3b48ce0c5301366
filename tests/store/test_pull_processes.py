"""The `bendi` command in processes of its own: two at once, Ctrl-C, a kill, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pulling import IMPATIENT, Puller
from servers import Fault, FileServer, HubServer, Start
from tiny import gguf, sha256, split_gguf

from bendi.errors import StoreError
from bendi.settings import Settings
from bendi.store import Store
from bendi.store.journal import journal_path, part_path
from bendi.store.lock import STORE_LOCK_NAME, locked
from bendi.store.pull import pull

REPO = "org/Tiny-GGUF"
NAME = f"hf:{REPO}:Q4_K_M"


@pytest.fixture
def cdn(start: Start) -> FileServer:
    return start(FileServer(host="localhost"))


@pytest.fixture
def hub(start, cdn: FileServer) -> HubServer:
    server = start(HubServer(cdn))
    server.repos[REPO] = {"Tiny-Q4_K_M.gguf": gguf(300_000, 1)}
    return server


@pytest.fixture
def environment(settings: Settings, hub: HubServer) -> dict[str, str]:
    return dict(os.environ) | {
        "BENDI_MODELS": str(settings.models_dirs[0]),
        "BENDI_CONFIG": str(settings.config_dir),
        "BENDI_LANG": "en",
        "HF_ENDPOINT": hub.url,
    }


Bendi = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def bendi(environment: dict[str, str]) -> Iterator[Bendi]:
    """Starts `bendi ...`; what still runs at the end of the test is killed."""
    running: list[subprocess.Popen[str]] = []

    def start_process(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "bendi", *arguments],
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        running.append(process)
        return process

    yield start_process
    for process in running:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def target(settings: Settings) -> Path:
    return settings.models_dirs[0] / "hf" / "org" / "Tiny-GGUF" / "Tiny-Q4_K_M.gguf"


def test_two_processes_load_one_model_once(bendi: Bendi, hub: HubServer, cdn: FileServer, settings: Settings) -> None:
    cdn.faults = [Fault(slow_s=0.002, times=1)]
    first = bendi("pull", NAME)
    wait_for(lambda: cdn.body_bytes > 20_000)
    second = bendi("pull", NAME, "--json")
    out, talk = second.communicate(timeout=60)
    assert first.wait(timeout=60) == 0
    assert second.returncode == 0, talk
    assert "waiting for it" in talk
    content = hub.repos[REPO]["Tiny-Q4_K_M.gguf"]
    assert cdn.body_bytes == len(content)
    assert target(settings).read_bytes() == content
    [result] = json.loads(out)
    assert (result["status"], result["path"]) == ("present", str(target(settings)))


def test_a_pull_that_waited_for_a_move_does_not_write_to_the_old_place(
    hub: HubServer, settings: Settings, puller: Puller
) -> None:
    puller.use(hf_endpoint=hub.url)
    lock = settings.models_dirs[0] / STORE_LOCK_NAME
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            puller(NAME)
        except StoreError as error:
            errors.append(error)

    with locked(lock):
        thread = threading.Thread(target=attempt)
        thread.start()
        wait_for(lambda: bool(puller.notes))
    thread.join()
    assert "just been moved" in str(errors[0])
    assert not list(settings.models_dirs[0].rglob("*.gguf*"))
    assert puller(NAME).status == "downloaded"


def test_two_models_at_once(bendi: Bendi, hub: HubServer, settings: Settings) -> None:
    hub.repos[REPO]["Tiny-Q8_0.gguf"] = gguf(200_000, 2)
    processes = [bendi("pull", f"hf:{REPO}:{quant}") for quant in ("Q4_K_M", "Q8_0")]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert {model.label for model in Store(settings).models() if model.complete} == {"Q4_K_M", "Q8_0"}


def test_threads_of_one_process_load_one_model_once(hub, cdn, puller: Puller):
    puller.use(hf_endpoint=hub.url)
    cdn.faults = [Fault(slow_s=0.001)]
    results = []
    threads = [threading.Thread(target=lambda: results.append(puller(NAME).status)) for _number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["downloaded", "present", "present"]
    assert cdn.body_bytes == len(hub.repos[REPO]["Tiny-Q4_K_M.gguf"])


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT that could be sent to one process")
def test_ctrl_c_keeps_every_byte(bendi: Bendi, hub: HubServer, cdn: FileServer, settings: Settings) -> None:
    cdn.faults = [Fault(slow_s=0.005)]
    process = bendi("pull", NAME)
    wait_for(lambda: cdn.body_bytes > 50_000)
    process.send_signal(signal.SIGINT)
    out, talk = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert f"bendi pull {NAME}" in talk
    assert "Traceback" not in talk
    arrived = part_path(target(settings)).stat().st_size
    assert arrived > 40_000
    assert not target(settings).exists()
    again = bendi("list")
    assert "KiB of 293 KiB" in again.communicate(timeout=30)[0]
    cdn.faults = []
    cdn.seen.clear()
    process = bendi("pull", NAME)
    out, talk = process.communicate(timeout=60)
    assert process.returncode == 0, talk
    assert out.strip() == str(target(settings))
    content = hub.repos[REPO]["Tiny-Q4_K_M.gguf"]
    assert target(settings).read_bytes() == content
    assert cdn.seen[0].headers["range"] == f"bytes={arrived}-{len(content) - 1}"


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT that could be sent to one process")
def test_ctrl_c_while_the_server_is_silent(bendi: Bendi, hub: HubServer, cdn: FileServer) -> None:
    cdn.faults = [Fault(stall_s=60)]
    process = bendi("pull", NAME)
    wait_for(lambda: bool(cdn.seen))
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130


def test_a_kill_loses_little_and_breaks_nothing(
    bendi: Bendi, hub: HubServer, cdn: FileServer, settings: Settings
) -> None:
    cdn.faults = [Fault(slow_s=0.02)]
    process = bendi("pull", NAME)
    wait_for(journal_path(target(settings)).exists)
    process.kill()
    process.communicate()
    assert Store(settings).find(NAME) is None
    cdn.faults = []
    cdn.seen.clear()
    assert bendi("pull", NAME).wait(timeout=60) == 0
    assert target(settings).read_bytes() == hub.repos[REPO]["Tiny-Q4_K_M.gguf"]
    start = int(cdn.seen[0].headers["range"].split("=")[1].split("-")[0])
    assert start > 50_000


@pytest.fixture
def in_memory(settings: Settings) -> Iterator[Settings]:
    """A store on a disk that syncs fast, since hundreds of pulls follow."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield replace(settings, models_dirs=(Path(folder, "models"),))


def deaths(root: Path, name: str, hub: HubServer) -> list[tuple[list[str] | None, list[str] | None]]:
    """What the store held after each death and after the pull that followed it, as hashes."""
    script = Path(__file__).with_name("dying.py")
    done = subprocess.run([sys.executable, script, root, name, hub.url], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    states: list[tuple[list[str] | None, list[str] | None]] = json.loads(done.stdout)
    assert len(states) > 20
    return states


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_death_at_any_moment_installs_nothing_wrong(hub: HubServer, in_memory: Settings) -> None:
    hub.repos[REPO]["Tiny-Q4_K_M.gguf"] = content = gguf(2000, 1)
    states = deaths(in_memory.models_dirs[0], NAME, hub)
    assert {tuple(dead or ()) for dead, _then in states} == {(), (sha256(content),)}
    assert all(then == [sha256(content)] for _dead, then in states)


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
@pytest.mark.parametrize("larger", [0, 64], ids=["of one size", "of another size"])
def test_death_at_any_moment_of_an_update_leaves_the_old_model_or_the_new_one(
    hub: HubServer, in_memory: Settings, larger: int
) -> None:
    old, new = gguf(2000, 1), gguf(2000 + larger, 2)
    hub.repos[REPO]["Tiny-Q4_K_M.gguf"] = old
    root = in_memory.models_dirs[0]
    pull(Store(replace(in_memory, hf_endpoint=hub.url)), NAME, options=IMPATIENT)
    hub.repos[REPO]["Tiny-Q4_K_M.gguf"] = new
    states = deaths(root, NAME, hub)
    assert {tuple(dead or ()) for dead, _then in states} == {(sha256(old),), (sha256(new),)}
    assert all(then == [sha256(new)] for _dead, then in states)


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
@pytest.mark.parametrize("larger", [0, 64], ids=["of one size", "of another size"])
def test_death_at_any_moment_of_an_update_of_a_split_model_never_mixes(
    hub: HubServer, in_memory: Settings, larger: int
) -> None:
    """Between two renames there is no whole model; then none is found, never a mixture, and the next pull mends it."""
    old, new = split_gguf(2, 500, 1), split_gguf(2, 500 + larger, 2)
    files = [f"big-{n:05d}-of-00002.gguf" for n in (1, 2)]
    hub.repos[REPO] = dict(zip(files, old, strict=True))
    name = f"hf:{REPO}/{files[0]}"
    pull(Store(replace(in_memory, hf_endpoint=hub.url)), name, options=IMPATIENT)
    hub.repos[REPO] = dict(zip(files, new, strict=True))
    states = deaths(in_memory.models_dirs[0], name, hub)
    hashes = {tuple(dead) for dead, _then in states if dead is not None}
    assert hashes == {tuple(map(sha256, old)), tuple(map(sha256, new))}
    assert sum(dead is None for dead, _then in states) <= 4
    assert all(then == list(map(sha256, new)) for _dead, then in states)


def test_exit_codes_and_messages(bendi: Bendi, hub: HubServer, cdn: FileServer) -> None:
    process = bendi("pull", f"hf:{REPO}:Q2_K")
    _out, talk = process.communicate(timeout=30)
    assert process.returncode == 3
    assert f"bendi pull {NAME}" in talk
    cdn.faults = [Fault(flip=1000, times=-1)]
    process = bendi("pull", NAME)
    _out, talk = process.communicate(timeout=30)
    assert process.returncode == 7
    assert "not what was promised" in talk
    cdn.faults = [Fault(cut_after=0, times=-1)]
    process = bendi("pull", NAME, "--retries", "1")
    _out, talk = process.communicate(timeout=30)
    assert process.returncode == 6
    process = bendi("pull", "hf:../..")
    process.communicate(timeout=30)
    assert process.returncode == 2
