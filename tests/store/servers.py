"""Real HTTP servers on loopback that speak the wire protocols of the hub, ModelScope, the Ollama registry and plain
file servers, and that can be told to misbehave.

Every server logs its requests in `seen`. `faults` is a queue: each answer that has a file as its body takes the first
one that its path matches. A fault with `times=-1` stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


@dataclass
class Fault:
    """One misbehaviour. `path`: what the path must contain. `times`: how often, -1 for ever.

    `status`, `headers`: that answer instead. `cut_after`: closes the connection after so many bytes of the body.
    `flip`: changes the byte at that offset of the file. `lie_bytes`: Content-Length is wrong by so much.
    `lie_total`: the total of Content-Range is wrong by so much. `stall_s`: silence before the body. `no_ranges`:
    ignores Range. `no_length`: neither Content-Length nor chunks, the end of the connection is the end of the file.
    `slow_s`: pause after each KiB. `encoding`: claims that the body is compressed. `redirect`: to that URL.
    `shift`: sends another range than was asked for.
    """

    path: str = ""
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    flip: int | None = None
    lie_bytes: int = 0
    lie_total: int = 0
    stall_s: float = 0
    no_ranges: bool = False
    no_length: bool = False
    slow_s: float = 0
    encoding: str = ""
    redirect: str = ""
    shift: int = 0


@dataclass
class Blob:
    """A file of a server. `etag` as it is sent, with quotes; "" for none."""

    content: bytes
    etag: str = ""
    last_modified: str = ""


class LoopbackServer:
    """A threaded HTTP server on a free port. `host`: the name that its URLs use."""

    def __init__(self, host: str = "127.0.0.1", certificate: Path | None = None) -> None:
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []
        self.body_bytes = 0
        self.files: dict[str, Blob] = {}
        self.token: str | None = None
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        outer = self

        class Handler(_Handler):
            server_side = outer

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def get_request(self) -> tuple[socket.socket, Any]:
                connection, address = super().get_request()
                outer._sockets.append(connection)
                return connection, address

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that goes away is what these tests are about

        self._http = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._http.server_address[1])
        self.url = f"{'https' if certificate else 'http'}://{host}:{self.port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._thread.join()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    def fault_for(self, path: str) -> Fault:
        with self._lock:
            for fault in self.faults:
                if fault.path in path and fault.times:
                    fault.times -= 1
                    return fault
        return Fault()

    def route(self, request: _Handler, path: str, query: Mapping[str, list[str]]) -> None:
        """Answers a request; servers of one protocol override it."""
        blob = self.files.get(path)
        if blob is None:
            request.answer(404, b"not found")
        else:
            request.send_file(blob)

    def paths(self, part: str = "") -> list[str]:
        return [seen.path for seen in self.seen if part in seen.path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_side: ClassVar[LoopbackServer]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server_side.seen.append(Seen("GET", self.path, headers))
        parts = urlsplit(self.path)
        fault = self.fault = self.server_side.fault_for(self.path)
        if fault.redirect:
            self.answer(302, b"", {"Location": fault.redirect, **fault.headers})
        elif fault.status:
            self.answer(fault.status, b"refused", fault.headers)
        else:
            self.server_side.route(self, unquote(parts.path), parse_qs(parts.query))

    def answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_json(self, value: object, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.answer(200, body, {"Content-Type": "application/json", **(headers or {})})

    def redirect(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.answer(302, b"", {"Location": url, **(headers or {})})

    def send_file(self, blob: Blob) -> None:
        """`blob`, whole or the range that was asked for, with the fault of this request."""
        fault = self.fault
        content = blob.content
        if fault.flip is not None:
            content = content[: fault.flip] + bytes([content[fault.flip] ^ 1]) + content[fault.flip + 1 :]
        start, end, partial = self._range(blob, len(content))
        if partial and start >= len(content):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        body = content[start:end]
        self.send_response(206 if partial else 200)
        if partial:
            first = start + fault.shift
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(content) + fault.lie_total}")
        for name, value in (("ETag", blob.etag), ("Last-Modified", blob.last_modified)):
            if value:
                self.send_header(name, value)
        if fault.encoding:
            self.send_header("Content-Encoding", fault.encoding)
        if fault.no_length:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body) + fault.lie_bytes))
        self.end_headers()
        self._send_body(body, fault)

    def _range(self, blob: Blob, length: int) -> tuple[int, int, bool]:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if not match or self.fault.no_ranges or (condition and condition not in (blob.etag, blob.last_modified)):
            return 0, length, False
        return int(match[1]), min(int(match[2]) + 1, length) if match[2] else length, True

    def _send_body(self, body: bytes, fault: Fault) -> None:
        if fault.stall_s:
            self.wfile.flush()
            self.server_side.released.wait(fault.stall_s)
        if fault.cut_after is not None and fault.cut_after < len(body):
            body, cut = body[: fault.cut_after], True
        else:
            cut = fault.lie_bytes > 0
        step = 1024 if fault.slow_s else 65536
        for offset in range(0, len(body), step):
            self.wfile.write(body[offset : offset + step])
            self.server_side.body_bytes += len(body[offset : offset + step])
            if fault.slow_s:
                self.wfile.flush()
                time.sleep(fault.slow_s)
        self.wfile.flush()
        if cut or fault.no_length or fault.lie_bytes < 0:
            self.close_connection = True


S = TypeVar("S", bound=LoopbackServer)


class Start(Protocol):
    """The fixture `start`: registers a server to be closed at the end of the test, and returns it."""

    def __call__(self, server: S) -> S: ...


class FileServer(LoopbackServer):
    """Plain files by path; also used as the CDN of the others."""

    def put(self, path: str, content: bytes, etag: str = "", last_modified: str = "") -> str:
        """Serves `content`; returns its URL."""
        self.files[path] = Blob(content, etag, last_modified)
        return self.url + quote(path)


class HubServer(LoopbackServer):
    """The hub: `/api/models/...`, and `/resolve/` that redirects to `cdn` (when there is one).

    `repos`: files by repository and path. `small`: paths that are not in Git LFS. `page`: entries of one page.
    """

    def __init__(self, cdn: FileServer | None = None, host: str = "127.0.0.1") -> None:
        self.cdn = cdn
        self.repos: dict[str, dict[str, bytes]] = {}
        self.small: set[str] = set()
        self.page = 1000
        self.promised: dict[str, str] = {}
        self.sizes: dict[str, object] = {}
        self.extra_entries: list[dict[str, object]] = []
        self.gated: set[str] = set()
        self.link_base = ""
        self.commit = COMMIT
        super().__init__(host)

    def route(self, request: _Handler, path: str, query: Mapping[str, list[str]]) -> None:
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/(.+)", path)
        resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        repo = match[1] if match else resolve[1] if resolve else ""
        files = self.repos.get(repo)
        authorization = request.headers.get("Authorization")
        if files is None or (self.token and authorization != f"Bearer {self.token}"):
            request.answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif repo in self.gated and not authorization:
            request.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif match and match[2] == "revision":
            if match[3] in ("main", "v1", "refs/pr/1", self.commit):
                request.answer_json({"id": repo, "sha": self.commit})
            else:
                request.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif match:
            self._tree(request, repo, files, int(query.get("cursor", ["0"])[0]))
        elif resolve:
            self._resolve(request, resolve[3], files)
        else:
            request.answer(404, b"")

    def _tree(self, request: _Handler, repo: str, files: Mapping[str, bytes], start: int) -> None:
        entries: list[dict[str, object]] = [{"type": "directory", "path": "folder", "oid": "0" * 40}]
        for path, content in files.items():
            digest = self.promised.get(path) or hashlib.sha256(content).hexdigest()
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            size = self.sizes.get(path, len(content))
            entry: dict[str, object] = {"type": "file", "path": path, "size": size, "oid": git}
            if path not in self.small:
                entry |= {"oid": "1" * 40, "lfs": {"oid": digest, "size": size, "pointerSize": 134}}
            entries.append(entry)
        entries += self.extra_entries
        headers = {}
        if start + self.page < len(entries):
            tree = f"{self.link_base or self.url}/api/models/{repo}/tree/{self.commit}"
            following = f"{tree}?recursive=true&cursor={start + self.page}"
            headers["Link"] = f'<{following}>; rel="next"'
        request.answer_json(entries[start : start + self.page], headers)

    def _resolve(self, request: _Handler, path: str, files: Mapping[str, bytes]) -> None:
        content = files.get(path)
        if content is None:
            request.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif self.cdn is None or path in self.small:
            request.send_file(Blob(content))
        else:
            digest = hashlib.sha256(content).hexdigest()
            url = self.cdn.put(f"/blobs/{digest}", content, etag=f'"cdn-{digest[:8]}"')
            linked = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{digest}"', "X-Repo-Commit": self.commit}
            request.redirect(f"{url}?X-Signature=secret", linked)


class ModelScopeServer(LoopbackServer):
    """ModelScope: the file list with SHA-256, and `/resolve/` that redirects to `cdn` (when there is one)."""

    def __init__(self, cdn: FileServer | None = None, host: str = "127.0.0.1") -> None:
        self.cdn = cdn
        self.repos: dict[str, dict[str, bytes]] = {}
        self.promised: dict[str, str] = {}
        super().__init__(host)

    def route(self, request: _Handler, path: str, query: Mapping[str, list[str]]) -> None:
        listing = re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo/files", path)
        resolve = re.fullmatch(r"/models/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        repo = listing[1] if listing else resolve[1] if resolve else ""
        files = self.repos.get(repo)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            request.answer(403, b"{}")
        elif files is None or (listing and query.get("Revision") not in (["master"], ["v1"])):
            request.answer(404, json.dumps({"Code": 10010205001, "Message": "not found"}).encode())
        elif listing:
            entries: list[dict[str, object]] = [{"Path": "folder", "Type": "tree", "Size": 0, "Sha256": ""}]
            entries += [
                {"Path": path, "Name": path.rpartition("/")[2], "Type": "blob", "Size": len(content),
                 "Sha256": self.promised.get(path) or hashlib.sha256(content).hexdigest()}
                for path, content in files.items()
            ]  # fmt: skip
            request.answer_json({"Code": 200, "Success": True, "Data": {"Files": entries}})
        elif resolve and resolve[3] in files:
            content = files[resolve[3]]
            if self.cdn is None:
                request.send_file(Blob(content))
            else:
                request.redirect(self.cdn.put(f"/ms/{hashlib.sha256(content).hexdigest()}", content))
        else:
            request.answer(404, b"")


class OllamaRegistryServer(LoopbackServer):
    """The Ollama registry: manifests, and blobs that redirect to `cdn` (when there is one)."""

    def __init__(self, cdn: FileServer | None = None, host: str = "127.0.0.1") -> None:
        self.cdn = cdn
        self.manifests: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.challenge = ""
        super().__init__(host)

    def add(self, name: str, layers: Mapping[str, bytes] | list[tuple[str, bytes]]) -> dict[str, Any]:
        """Serves a model, `namespace/name:tag`; returns its manifest, which may be changed."""
        pairs = list(layers.items()) if isinstance(layers, Mapping) else layers
        entries = []
        for kind, content in pairs:
            digest = hashlib.sha256(content).hexdigest()
            self.blobs[digest] = content
            entries.append({
                "mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}", "size": len(content),
            })  # fmt: skip
        manifest = {
            "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": "sha256:" + "0" * 64,
                       "size": 2},
            "layers": entries,
        }  # fmt: skip
        self.manifests[name] = manifest
        return manifest

    def route(self, request: _Handler, path: str, query: Mapping[str, list[str]]) -> None:
        manifest = re.fullmatch(r"/v2/([^/]+/[^/]+)/manifests/([^/]+)", path)
        blob = re.fullmatch(r"/v2/([^/]+/[^/]+)/blobs/sha256:([0-9a-f]{64})", path)
        if self.challenge:
            request.answer(401, b"{}", {"WWW-Authenticate": self.challenge})
        elif manifest and f"{manifest[1]}:{manifest[2]}" in self.manifests:
            request.answer_json(self.manifests[f"{manifest[1]}:{manifest[2]}"])
        elif blob and blob[2] in self.blobs:
            content = self.blobs[blob[2]]
            if self.cdn is None:
                request.send_file(Blob(content))
            else:
                request.redirect(self.cdn.put(f"/ollama/{blob[2]}", content))
        else:
            request.answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
