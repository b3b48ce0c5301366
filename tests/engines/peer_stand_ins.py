"""Servers and programs that stand where other engines would: they are real ones, on loopback and in processes, and say
what was recorded of the real engines."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = tuple[int, Iterable[bytes]]


class WireServer:
    """`answers`: by method and path, what is sent: a status, and pieces that are sent one by one; or a function of the
    request's body that gives it. `asked`: what came: method, path, headers and body."""

    def __init__(self, answers: dict[str, Answer | Callable[[Any], Answer]]) -> None:
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                raw = self.rfile.read(length)
                body = json.loads(raw) if raw[:1] in (b"{", b"[") else raw
                outer.asked.append((self.command, self.path, dict(self.headers), body))
                found = answers.get(f"{self.command} {self.path}", (404, [b'{"error": {"message": "no such path"}}']))
                status, pieces = found(body) if callable(found) else found
                self.send_response(status)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                try:
                    for piece in pieces:
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                        self.wfile.flush()
                    self.wfile.write(b"0\r\n\r\n")
                except Broken:
                    self.close_connection = True
                except OSError:  # the client went away
                    outer.gone.set()
                    self.close_connection = True

            do_GET = do_POST = do_DELETE = answer

        self.gone = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> WireServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def bodies(self, path: str) -> list[Any]:
        return [body for _method, asked, _headers, body in self.asked if asked == path]


class Broken(Exception):
    """Raised by pieces: the connection ends here, in the middle."""


def sent(value: object) -> Answer:
    return 200, [json.dumps(value).encode()]


def sse(*events: object, done: bool = True) -> Answer:
    pieces = [f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode() for event in events]
    return 200, [*pieces, *([b"data: [DONE]\n\n"] if done else [])]


def ndjson(*records: object) -> Answer:
    return 200, [json.dumps(record).encode() + b"\n" for record in records]


def text_event(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"object": "text_completion", "choices": [{"index": 0, "text": text, "finish_reason": finish}]}


def usage_event(prompt_tok: int, completion_tok: int, **more: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt_tok, "completion_tokens": completion_tok}
    return {"choices": [], "usage": usage, **more}


_PROGRAM = """\
#!{python} -IB
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
answers, record, refused = {answers!r}, {record!r}, {refused!r}
with open(record, "a") as file:
    file.write(json.dumps({{"argv": sys.argv[1:], "environ": dict(os.environ), "pid": os.getpid()}}) + "\\n")
unknown = [word for word in sys.argv if word in refused]
if unknown:
    sys.exit("error: unrecognized arguments: " + " ".join(unknown))
port = {port}
sys.stderr.write({log!r} + "\\n")
sys.stderr.flush()
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with open(record, "a") as file:
            said = {{"path": self.path, "key": self.headers.get("Authorization"), "body": body.decode()}}
            file.write(json.dumps(said) + "\\n")
        raw = answers.get(self.command + " " + self.path)
        self.send_response(200 if raw is not None else 404)
        raw = (raw or "{{}}").encode()
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
    do_GET = do_POST = do_DELETE = answer
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
PORT_OPTION = 'int(sys.argv[sys.argv.index("--port") + 1])'
PORT_OF_OLLAMA = 'int(os.environ["OLLAMA_HOST"].rpartition(":")[2])'


class FakeProgram:
    """A program in `folder` that writes down how it was started and what it was asked, and serves `answers` (texts, by
    method and path). `log`: what it writes when it starts. `refused`: options that it does not know. `port`: where it
    takes its port from."""

    def __init__(
        self,
        folder: Path,
        name: str,
        answers: dict[str, Answer],
        *,
        log: str = "",
        refused: tuple[str, ...] = (),
        port: str = PORT_OPTION,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self._record = folder / name, folder / f"{name}.jsonl"
        texts = {path: b"".join(pieces).decode() for path, (_status, pieces) in answers.items()}
        self.path.write_text(
            _PROGRAM.format(
                python=sys.executable, answers=texts, record=str(self._record), refused=refused, port=port, log=log
            )
        )
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)

    @property
    def starts(self) -> list[dict[str, Any]]:
        return [row for row in self._rows() if "argv" in row]

    def asked(self, path: str) -> list[dict[str, Any]]:
        return [row for row in self._rows() if row.get("path") == path]

    def _rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._record.read_text().splitlines()]


@contextmanager
def bendi_server(home: Path) -> Iterator[str]:
    """The address of a real `bendi serve`."""
    environment = {**os.environ, "HOME": str(home), "BENDI_LANG": "en"}
    with subprocess.Popen(
        [sys.executable, "-m", "bendi", "serve", "--port", "0", "--log", "json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stderr
            lines = (json.loads(line) for line in process.stderr if line.startswith("{"))
            yield next(str(row["url"]) for row in lines if row.get("event") == "ready")
        finally:
            process.terminate()


def wait_until_gone(pid: int) -> None:
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still there")
