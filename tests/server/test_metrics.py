"""Numbers in the format of Prometheus: right, escaped, bounded, and without anything private."""

from __future__ import annotations

import re
import threading

import pytest
from live import LiveServer

from bendi.messages import Timings, Usage
from bendi.server.metrics import Metrics
from bendi.server.pool import Loaded

LINE = re.compile(r'[a-z_]+(\{([a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*\})? -?(\d+(\.\d+)?(e[+-]?\d+)?|\+Inf)')


def numbers(text: str) -> dict[str, float]:
    """By line without its number, after a check that every line is one."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("# "):
            assert LINE.fullmatch(line), line
            name, _space, number = line.rpartition(" ")
            assert name not in found, f"twice: {name}"
            found[name] = float(number)
    return found


def test_answers_are_counted() -> None:
    metrics = Metrics()
    metrics.answered("m", Usage(10, 5, 4), Timings(ttft_s=0.02, tg_tok_s=50.0))
    metrics.answered("m", Usage(1, 2), None)
    found = numbers(metrics.text([]))
    assert found['bendi_prompt_tokens_total{model="m"}'] == 11
    assert found['bendi_cached_tokens_total{model="m"}'] == 4
    assert found['bendi_completion_tokens_total{model="m"}'] == 7
    assert found['bendi_ttft_seconds_count{model="m"}'] == 1
    assert found['bendi_ttft_seconds_bucket{model="m",le="0.01"}'] == 0
    assert found['bendi_ttft_seconds_bucket{model="m",le="0.025"}'] == 1
    assert found['bendi_ttft_seconds_bucket{model="m",le="+Inf"}'] == 1
    assert found['bendi_tpot_seconds_sum{model="m"}'] == pytest.approx(0.02)


def test_a_number_on_a_bound_belongs_to_it() -> None:
    metrics = Metrics()
    metrics.requested("GET", "/x", 200, 0.1)
    assert numbers(metrics.text([]))['bendi_request_seconds_bucket{route="/x",le="0.1"}'] == 1


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "模型", 'x",y="1', "\\n"])
def test_labels_are_escaped(name: str) -> None:
    metrics = Metrics()
    metrics.answered(name, Usage(1, 1))
    found = numbers(metrics.text([loaded(name)]))
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    assert found[f'bendi_prompt_tokens_total{{model="{escaped}"}}'] == 1


def test_series_are_bounded() -> None:
    metrics = Metrics()
    for number in range(3000):
        metrics.answered(f"m{number}", Usage(1, 0))
    found = numbers(metrics.text([]))
    assert found['bendi_prompt_tokens_total{model="other"}'] == 2000
    assert sum(name.startswith("bendi_prompt_tokens_total") for name in found) == 1001


def test_many_threads_lose_nothing() -> None:
    metrics = Metrics()

    def count() -> None:
        for _ in range(500):
            metrics.answered("m", Usage(1, 1))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(metrics.text([]))['bendi_prompt_tokens_total{model="m"}'] == 4000


def loaded(name: str) -> Loaded:
    return Loaded(name, "text", "/somewhere/secret.gguf", "b", 2048, 4, 100, 90, 1, 2, None, True, "ready")


def test_loaded_models_show_memory_and_queue_but_no_path() -> None:
    text = Metrics().text([loaded("m"), loaded("m")])  # one that is being replaced stands there twice
    found = numbers(text)
    assert found['bendi_model_memory_bytes{model="m",kind="text"}'] == 200
    assert found['bendi_model_queue{model="m",kind="text"}'] == 4
    assert "secret" not in text


def test_requests_are_counted_by_route_never_by_path(server: LiveServer) -> None:
    for _ in range(3):
        server.client.get("/v1/models/a-private-name")
    server.client.request("FOO", "/a-private-path")
    answer = server.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = numbers(answer.text)
    assert found['bendi_requests_total{method="GET",route="/v1/models/{model:path}",status="404"}'] == 3
    assert found['bendi_requests_total{method="other",route="none",status="404"}'] == 1
    assert "private" not in answer.text


def test_a_real_answer_is_counted_and_logged(server: LiveServer) -> None:
    body = {"model": "demo", "max_tokens": 4, "messages": [{"role": "user", "content": "What is a KV cache?"}]}
    usage = server.client.post("/v1/chat/completions", json=body).json()["usage"]
    found = numbers(server.client.get("/metrics").text)
    assert found['bendi_completion_tokens_total{model="demo"}'] == usage["completion_tokens"]
    assert found['bendi_ttft_seconds_count{model="demo"}'] == 1
    line = server.log[0]
    assert (line["models"], line["completion_tok"]) == (["demo"], usage["completion_tokens"])
