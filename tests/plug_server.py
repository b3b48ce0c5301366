"""A wall plug: a real HTTP server on loopback that answers as the documents of its maker say."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

Answer = tuple[int, bytes | dict[str, Any], dict[str, str]]


def shelly1(power_w: float, total_wmin: float) -> dict[str, Any]:
    """Of `/status`; shortened to what is read and what is beside it."""
    return {
        "wifi_sta": {"connected": True},
        "relays": [{"ison": True, "overpower": False}],
        "meters": [
            {"power": power_w, "overpower": 0.0, "is_valid": True, "timestamp": 1611151234,
             "counters": [power_w, 0.0, 0.0], "total": total_wmin}
        ],
    }  # fmt: skip


def shelly2(power_w: float, total_wh: float) -> dict[str, Any]:
    """Of `/rpc/Switch.GetStatus?id=0`."""
    return {
        "id": 0, "source": "init", "output": True, "apower": power_w, "voltage": 230.1, "current": 0.5,
        "aenergy": {"total": total_wh, "by_minute": [0.0, 0.0, 0.0], "minute_ts": 1626935779},
        "temperature": {"tC": 40.1, "tF": 104.2},
    }  # fmt: skip


def tasmota(power_w: float | list[float], total_kwh: float) -> dict[str, Any]:
    """Of `/cm?cmnd=Status%208`."""
    energy = {"TotalStartTime": "2020-10-21T22:15:00", "Total": total_kwh, "Yesterday": 0.028, "Today": 0.026,
              "Power": power_w, "ApparentPower": 5, "Factor": 1.0, "Voltage": 233, "Current": 0.021}  # fmt: skip
    return {"StatusSNS": {"Time": "2022-01-11T21:57:38", "ENERGY": energy}}


class Plug:
    def __init__(self, answer: Callable[[str], Answer]) -> None:
        self.answer = answer
        self.asked: list[str] = []
        plug = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                plug.asked.append(self.path)
                status, body, headers = plug.answer(self.path)
                data = json.dumps(body).encode() if isinstance(body, dict) else body
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(data))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(data)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Plug:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def one(path: str, body: dict[str, Any]) -> Callable[[str], Answer]:
    """Answers one path, and 404 elsewhere."""
    return lambda asked: (200, body, {}) if asked == path else (404, b"Not Found", {})


@contextlib.contextmanager
def dripping(pause_s: float) -> Iterator[str]:
    """A server that sends one byte of a header now and then, for ever. Gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
                    while not done.wait(pause_s):
                        connection.sendall(b"x")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
