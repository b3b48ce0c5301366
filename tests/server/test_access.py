"""Who may ask what: every attack on a local server that is known by name, tried over real HTTP."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from live import LiveServer
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from bendi.server.app import ALL
from bendi.server.endpoint import Call, Endpoint
from bendi.server.policy import Policy
from bendi.settings import Settings

PUBLIC = {"/health", "/ready", "/", "/page/{name}"}
ADMIN_ONLY = [endpoint for endpoint in ALL if endpoint.scope == "admin"]
PRIVATE = [endpoint for endpoint in ALL if endpoint.scope != "public"]


def where(endpoint: Endpoint) -> str:
    """A path of this endpoint."""
    return re.sub(r"\{[^}]*\}", "x", endpoint.path)


def named(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


@pytest.fixture
def keyed(settings: Settings) -> Iterator[tuple[LiveServer, dict[str, str]]]:
    """A server that asks for keys, and the keys: `infer`, `admin`."""
    with LiveServer(settings) as live:
        keys = {scope: live.services.keys.add(f"my-{scope}", scope) for scope in ("infer", "admin")}
        yield live, keys


def raw(live: LiveServer, request: bytes) -> bytes:
    """What the server answers to these bytes, until it closes."""
    with socket.create_connection(("127.0.0.1", live.port), 10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


# Keys


def test_only_health_readiness_and_the_page_are_public() -> None:
    assert {endpoint.path for endpoint in ALL if endpoint.scope == "public"} <= PUBLIC
    assert all(endpoint.method == "GET" for endpoint in ALL if endpoint.scope == "public")


def test_key_walk_every_route_refuses_without_a_key_and_with_a_wrong_one(
    keyed: tuple[LiveServer, dict[str, str]],
) -> None:
    live, keys = keyed
    wrong = [
        {},
        {"Authorization": "Bearer bendi-wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {keys['admin']}"},
        {"Authorization": keys["admin"]},
        {"Authorization": f"Bearer {keys['admin'][:-1]}"},
        {"Authorization": f"Bearer {keys['admin']} {keys['admin']}"},
        {"x-api-key": "wrong"},
        {"Authorization": "Bearer wrong", "x-api-key": keys["admin"]},
        {"Cookie": f"key={keys['admin']}"},
        {"Authorization": "Bearer " + live.services.keys.all()[0].digest},
    ]
    for endpoint in PRIVATE:
        for headers in wrong:
            answer = live.client.request(endpoint.method, where(endpoint), headers=headers, content=b"{}")
            assert answer.status_code == 401, (named(endpoint), headers)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "error" in answer.json()
        answer = live.client.request(endpoint.method, where(endpoint), params={"key": keys["admin"]}, content=b"{}")
        assert answer.status_code == 401, named(endpoint)


def test_key_walk_other_methods_and_spellings_of_every_route(keyed: tuple[LiveServer, dict[str, str]]) -> None:
    live, _keys = keyed
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=10)  # sends paths as they are
    for endpoint in PRIVATE:
        path = where(endpoint)
        spellings = (path + "/", "/" + path, path.upper(), f"{path}/../health", f"/health/..{path}", path + "%00")
        tried = [(method, path) for method in ("HEAD", "PUT", "OPTIONS", "TRACE", "FOO")]
        for method, target in [*tried, *(("GET", spelling) for spelling in spellings)]:
            connection.request(method, target)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 401, (method, target)
    connection.close()


def test_key_walk_infer_keys_do_not_rule(keyed: tuple[LiveServer, dict[str, str]]) -> None:
    live, keys = keyed
    for endpoint in ADMIN_ONLY:
        headers = {"Authorization": f"Bearer {keys['infer']}"}
        answer = live.client.request(endpoint.method, where(endpoint), headers=headers, content=b"{}")
        assert answer.status_code == 403, named(endpoint)
        assert keys["infer"] not in answer.text


def test_right_keys_open_in_both_headers(keyed: tuple[LiveServer, dict[str, str]]) -> None:
    live, keys = keyed
    for headers in ({"Authorization": f"Bearer {keys['infer']}"}, {"x-api-key": keys["infer"]}):
        assert live.client.get("/v1/models", headers=headers).status_code == 200
    assert live.client.get("/v1/models", headers={"Authorization": f"bearer  {keys['admin']}"}).status_code == 200


def test_unknown_paths_do_not_exist_for_strangers(keyed: tuple[LiveServer, dict[str, str]]) -> None:
    live, keys = keyed
    assert live.client.get("/nothing").status_code == 401
    assert live.client.get("/nothing", headers={"x-api-key": keys["infer"]}).status_code == 404


def test_public_paths_need_no_key(keyed: tuple[LiveServer, dict[str, str]]) -> None:
    live, _keys = keyed
    assert live.client.get("/health").status_code == 200
    assert live.client.get("/ready").status_code == 200
    assert live.client.get("/health", headers={"x-api-key": "wrong"}).status_code == 200


def test_no_body_is_read_before_the_key_is_right(keyed: tuple[LiveServer, dict[str, str]]) -> None:
    live, _keys = keyed
    head = b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    assert raw(live, head).startswith(b"HTTP/1.1 401")


def test_taking_the_keys_away_opens_nothing(keyed: tuple[LiveServer, dict[str, str]]) -> None:
    live, keys = keyed
    assert live.client.get("/v1/models").status_code == 401
    live.services.keys.path.unlink()
    assert live.client.get("/v1/models").status_code == 401
    assert live.client.get("/v1/models", headers={"x-api-key": keys["admin"]}).status_code == 401


def test_a_server_that_others_reach_never_answers_without_a_key(settings: Settings) -> None:
    with LiveServer(settings, Policy(keys_required=True)) as live:
        assert live.client.get("/v1/models").status_code == 401
        assert live.client.get("/health").status_code == 200


def test_without_keys_everybody_of_this_machine_may(server: LiveServer) -> None:
    assert server.client.get("/v1/models", headers={"Authorization": "Bearer anything"}).status_code == 200


# Names: DNS rebinding


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example:80", "0.0.0.0:{port}",
        "[::]", "192.168.1.5", "localhost@evil.example", "localhost/", "local host", "", "127.1", "2130706433",
        "[::ffff:127.0.0.1%25x]", "localhost:port", "localhost:123456", "127.0.0.1:80:80", "xn--lcalhost-n2a",
    ],
)  # fmt: skip
def test_rebinding_other_names_are_refused(server: LiveServer, host: str) -> None:
    answer = server.client.get("/v1/models", headers={"Host": host.format(port=server.port)})
    assert answer.status_code in (400, 403)
    assert server.client.get("/health", headers={"Host": host.format(port=server.port)}).status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1", "[::1]:{port}", "127.8.9.1"])
def test_names_of_this_machine_are_its_own(server: LiveServer, host: str) -> None:
    assert server.client.get("/v1/models", headers={"Host": host.format(port=server.port)}).status_code == 200


def test_rebinding_one_host_header_there_must_be(server: LiveServer) -> None:
    for hosts in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
        answer = raw(server, b"GET /v1/models HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400")
    assert raw(server, b"GET /v1/models HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_rebinding_absolute_targets_do_not_help(server: LiveServer) -> None:
    target = b"GET http://localhost/v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert not raw(server, target).startswith(b"HTTP/1.1 200")


def test_names_can_be_added(settings: Settings) -> None:
    policy = Policy(hosts=Policy().hosts | {"bendi.example"})
    with LiveServer(settings, policy) as live:
        assert live.client.get("/v1/models", headers={"Host": "bendi.example:8443"}).status_code == 200


# Web pages of elsewhere


@pytest.mark.parametrize(
    "origin",
    [
        "null", "https://evil.example", "http://127.0.0.1:1", "http://localhost.evil.example", "file://",
        "chrome-extension://abcdef", "http://127.0.0.1:{port}.evil.example", "http://evil@127.0.0.1:{port}", "",
        "http://127.0.0.1:{port}/", "http://127.0.0.1:{port}, http://evil.example", "ftp://127.0.0.1:{port}",
        "http://[::1", "http://127.0.0.1:99999",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_origin_other_pages_are_refused(server: LiveServer, origin: str, method: str) -> None:
    headers = {"Origin": origin.format(port=server.port), "Content-Type": "text/plain"}
    answer = server.client.request(method, "/v1/models", headers=headers)
    assert answer.status_code == 403
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_origin_our_own_page_may(server: LiveServer) -> None:
    assert server.client.get("/v1/models", headers={"Origin": server.url}).status_code == 200
    same = {"Host": f"localhost:{server.port}", "Origin": f"http://localhost:{server.port}"}
    assert server.client.get("/v1/models", headers=same).status_code == 200
    behind_tls = {"Host": "localhost", "Origin": "https://localhost"}
    assert server.client.get("/v1/models", headers=behind_tls).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "x"])
def test_origin_loads_without_origin_are_seen_too(server: LiveServer, site: str) -> None:
    """As `<img src=...>` and `<script src=...>` send them."""
    assert server.client.get("/metrics", headers={"Sec-Fetch-Site": site}).status_code == 403
    assert server.client.get("/health", headers={"Sec-Fetch-Site": site}).status_code == 200


def test_origin_listed_pages_may_and_are_told(settings: Settings) -> None:
    with LiveServer(settings, Policy(origins=frozenset({"https://chat.example"}))) as live:
        key = live.services.keys.add("page")
        origin = {"Origin": "https://chat.example"}
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, x-a,b\tc"}
        preflight = live.client.options("/v1/chat/completions", headers=origin | asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://chat.example"
        assert preflight.headers["access-control-allow-headers"] == "authorization, x-a"
        assert "access-control-allow-credentials" not in preflight.headers
        answer = live.client.get("/v1/models", headers=origin | {"Authorization": f"Bearer {key}"})
        assert (answer.status_code, answer.headers["vary"]) == (200, "Origin")
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
        assert live.client.get("/v1/models", headers=origin).headers["access-control-allow-origin"]  # its 401, readable
        other = live.client.options("/v1/models", headers={"Origin": "https://evil.example"} | asked)
        assert other.status_code == 401 and "access-control-allow-origin" not in other.headers


# Limits


def test_body_limits_with_and_without_a_length(settings: Settings) -> None:
    policy = Policy(body_bytes=10_000)
    with LiveServer(settings, policy, (*ALL, _echo())) as live:
        large = json.dumps({"text": "x" * 20_000}).encode()
        assert live.client.post("/echo", content=large).status_code == 413
        assert live.client.post("/echo", content=iter([large[:9000], large[9000:]])).status_code == 413
        small = json.dumps({"text": "x" * 5_000}).encode()
        assert live.client.post("/echo", content=small).status_code == 200
        assert live.client.post("/echo", content=iter([small[:100], small[100:]])).status_code == 200
        lying = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n"
        assert raw(live, lying).split(b" ")[1] in (b"413", b"400")
        assert live.client.post("/echo", content=b"x", headers={"Content-Encoding": "gzip"}).status_code == 415


def test_a_body_that_ends_early_harms_nobody(settings: Settings) -> None:
    with LiveServer(settings, endpoints=(*ALL, _echo())) as live:
        raw(live, b'POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"te')
        assert live.client.get("/health").status_code == 200
        assert live.log[0]["status"] == 499


def test_limits_of_address_and_headers(server: LiveServer) -> None:
    assert server.client.get("/v1/models", params={"x": "y" * 9000}).status_code == 414
    assert server.client.get("/v1/models", headers={"X-Long": "y" * 40_000}).status_code == 431
    assert server.client.get("/v1/models", headers={f"X-{n}": "y" for n in range(150)}).status_code == 431


def test_requests_per_minute(settings: Settings) -> None:
    with LiveServer(settings, Policy(per_minute=100)) as live:
        own = {"x-api-key": live.services.keys.add("slow", requests_per_minute=3)}
        other = {"x-api-key": live.services.keys.add("free")}
        codes = [live.client.get("/v1/models", headers=own).status_code for _ in range(4)]
        assert codes == [200, 200, 200, 429]
        refused = live.client.get("/v1/models", headers=own)
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert live.client.get("/v1/models", headers=other).status_code == 200
        assert live.client.get("/health", headers=own).status_code == 200


# Headers, ids, logs


def test_security_headers_stand_on_every_answer(server: LiveServer) -> None:
    for path in ("/health", "/v1/models", "/nothing"):
        headers = server.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "server" not in headers
        assert not any(name.startswith("access-control") for name in headers)


def test_request_ids_are_taken_only_when_they_are_sane(server: LiveServer) -> None:
    assert (
        server.client.get("/health", headers={"X-Request-Id": "trace-1.A_b"}).headers["x-request-id"] == "trace-1.A_b"
    )
    made = set()
    for wished in ("a b", "x" * 65, "<script>", "", "a\tb", "{}", 'a"b', "é"):
        headers = {"X-Request-Id": wished.encode("latin-1")}
        made.add(server.client.get("/health", headers=headers).headers["x-request-id"])
    assert len(made) == 8 and all(re.fullmatch(r"req_[0-9a-f]{24}", text) for text in made)


def test_header_injection_in_request_ids(server: LiveServer) -> None:
    for end in (b"\n", b"\r", b"\r\n "):
        attack = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a" + end + b"Set-Cookie: x=1\r\n"
        answer = raw(server, attack + b"Connection: close\r\n\r\n")
        assert b"set-cookie" not in answer.lower().split(b"\r\n\r\n")[0]


def test_log_has_no_secret(keyed: tuple[LiveServer, dict[str, str]]) -> None:
    live, keys = keyed
    secret = "something private"
    for key in (*keys.values(), "bendi-wrong"):
        headers = {"Authorization": f"Bearer {key}", "Cookie": secret, "X-Secret": secret, "User-Agent": secret}
        body = json.dumps({"model": "demo", "prompt": secret, "messages": [{"role": "user", "content": secret}]})
        for endpoint in PRIVATE:
            live.client.request(
                endpoint.method, where(endpoint), params={"q": secret}, headers=headers, content=body.encode()
            )
        live.client.get(f"/{secret}", headers=headers)
    written = json.dumps(live.log, default=str)
    assert len(live.log) >= 3 * len(PRIVATE)
    assert secret not in written and "private" not in written
    assert not any(key in written or key[6:] in written for key in (*keys.values(), "bendi-wrong"))
    assert any(line["owner"] == "my-infer" for line in live.log)


def test_prompts_are_logged_only_when_asked_for(settings: Settings) -> None:
    for wanted in (False, True):
        with LiveServer(settings, Policy(log_prompts=wanted), (*ALL, _echo())) as live:
            live.client.post("/echo", json={"text": "a question"})
        assert ("a question" in json.dumps(live.log)) is wanted


def test_a_defect_is_one_clear_error_and_its_place_in_the_log(settings: Settings) -> None:
    with LiveServer(settings, endpoints=(*ALL, _broken())) as live:
        answer = live.client.get("/broken")
        assert answer.status_code == 500
        assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
        assert "secret" not in answer.text + json.dumps(live.log, default=str)
        assert any("_fails" in place for place in live.log[0]["places"])
        assert live.client.get("/health").status_code == 200


def test_wrong_methods_and_head(server: LiveServer) -> None:
    answer = server.client.delete("/v1/models")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert answer.json()["error"]["code"] == "wrong_method"
    head = server.client.head("/v1/models")
    assert (head.status_code, head.content) == (200, b"")
    options = server.client.options("/v1/models")
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/nothing", "openai"),
        ("/api/nothing", "ollama"),
        ("/v1/messages/x", "anthropic"),
        ("/api/bendi/x", "openai"),
    ],
)
def test_errors_are_written_as_the_client_reads_them(server: LiveServer, path: str, shape: str) -> None:
    answer = server.client.get(path)
    assert answer.status_code == 404
    body: dict[str, Any] = answer.json()
    if shape == "ollama":
        assert isinstance(body["error"], str)
    elif shape == "anthropic":
        assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
    else:
        assert body["error"]["type"] == "not_found_error"


def test_upgrades_are_not_taken(server: LiveServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/v1/models", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    assert connection.getresponse().status == 200
    connection.close()


class _Text(BaseModel):
    text: str


def _echo() -> Endpoint:
    async def echo(call: Call) -> Response:
        return JSONResponse({"length": len(call.body.text)})

    return Endpoint("POST", "/echo", echo, "infer", "openai", "Says how long a text is.", body=_Text)


def _broken() -> Endpoint:
    async def _fails(_call: Call) -> Response:
        raise ValueError("a secret")

    return replace(_echo(), method="GET", path="/broken", handler=_fails, body=None)
