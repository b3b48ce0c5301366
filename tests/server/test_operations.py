"""Health, readiness, metrics and the list of models, asked over real HTTP."""

from __future__ import annotations

from live import LiveServer


def test_health(server: LiveServer) -> None:
    answer = server.client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_readiness_follows_the_phase(server: LiveServer) -> None:
    assert server.client.get("/ready").json() == {"status": "ready"}
    server.services.phase.now = "draining"
    answer = server.client.get("/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "draining"})


def test_the_built_in_model_is_listed(server: LiveServer) -> None:
    listed = server.client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [entry["id"] for entry in listed["data"]] == ["demo"]
    assert server.client.get("/v1/models/demo").json() == listed["data"][0]


def test_a_model_that_is_not_there(server: LiveServer) -> None:
    answer = server.client.get("/v1/models/hf:org/absent:Q4_K_M")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
