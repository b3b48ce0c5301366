"""Programs that stand where llama-server should and do what a broken build would do: they speak its protocol, as far as
a proof asks, and then crash, hang or answer wrong numbers."""

from __future__ import annotations

import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

from bendi.engines import native_builds
from bendi.engines.native_builds import Manifest, NativeBuild, Program
from bendi.engines.native_recipe import SERVER
from bendi.settings import Settings
from bendi.store.disk import hash_file

BEHAVIOURS = ("crash", "illegal", "hang", "wrong", "nonsense", "nan")
_PROGRAM = """\
#!{python} -IB
import http.server, json, math, os, signal, socketserver, sys, time
behaviour, size = {behaviour!r}, {size}
path = sys.argv[sys.argv.index("--host") + 1]
key = open(sys.argv[sys.argv.index("--api-key-file") + 1]).read().strip()
cached = []

def tables(prompt):
    global cached
    shared = 0
    while shared < min(len(prompt) - 1, len(cached)) and prompt[shared] == cached[shared]:
        shared += 1
    cached = prompt
    row = [(-6.25 if behaviour != "nan" else None) for _ in range(size)]
    top = [{{"id": number, "logprob": value}} for number, value in enumerate(row)]
    return {{"completion_probabilities": [{{"top_logprobs": top}}], "timings": {{"prompt_n": len(prompt) - shared}}}}

class Handler(http.server.BaseHTTPRequestHandler):
    def address_string(self):
        return "socket"
    def log_message(self, *_):
        pass
    def reply(self, body):
        raw = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
    def do_GET(self):
        if self.path == "/props":
            return self.reply({{"default_generation_settings": {{"n_ctx": 1024}}, "chat_template_caps": {{}}}})
        if self.path == "/v1/models":
            return self.reply({{"data": [{{"meta": {{"n_ctx_train": 4096}}}}]}})
        self.reply({{"status": "ok"}})
    def do_POST(self):
        if self.headers["Authorization"] != "Bearer " + key:
            return self.send_error(401)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if behaviour == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if behaviour == "illegal":
            os.kill(os.getpid(), signal.SIGILL)
        if behaviour == "hang":
            time.sleep(600)
        self.reply({{"content": "hello"}} if behaviour == "nonsense" else tables(body["prompt"]))

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

Server(path, Handler).serve_forever()
"""


def install(settings: Settings, folder: Path, behaviour: str, size: int) -> NativeBuild:
    """A build in the cache of `settings` whose llama-server behaves so. `folder`: where its program is written first;
    `size`: of the vocabulary that it pretends to know."""
    program = folder / f"{behaviour}-server"
    program.write_text(_PROGRAM.format(python=sys.executable, behaviour=behaviour, size=size), "utf-8")
    return install_program(settings, program, f"stand-in-{behaviour}")


def install_program(settings: Settings, program: Path, build_id: str) -> NativeBuild:
    """A build in the cache of `settings` that consists of `program`."""
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    manifest = Manifest(
        build_id=build_id,
        recipe="static",
        source="none",
        source_sha256="0" * 64,
        compiler="none",
        isa=(),
        options={},
        flags=(),
        kernels="",
        repairs=(),
        programs={SERVER: Program(program.stat().st_size, hash_file(program))},
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        took_s=0.0,
    )
    return native_builds.install(settings, manifest, {SERVER: program})
