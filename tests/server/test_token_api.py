"""Texts to tokens and back, and how long a prompt would be, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from live import LiveServer

import scripted_model
from bendi.settings import load_settings
from bert_models import write_random_bert

QUESTION = [{"role": "user", "content": "What is a KV cache?"}]
# As models for agents do it: earlier thinking is shown.
_SHOWS_THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Models: `demo`; `bytes`, whose tokens are bytes and who sees earlier thinking; `encoder`, for vectors only."""
    home = tmp_path_factory.mktemp("tokens")
    models = home / "models"
    models.mkdir()
    scripted_model.write(models / "bytes.gguf", {}, _SHOWS_THINKING)
    write_random_bert(models / "encoder.gguf")
    folders = {name: str(home / name.lower()) for name in ("BENDI_STATE", "BENDI_CACHE", "BENDI_CONFIG")}
    with LiveServer(load_settings({"HOME": str(home), "BENDI_MODELS": str(models), **folders})) as live:
        yield live


def posted(server: LiveServer, path: str, status: int = 200, **body: Any) -> dict[str, Any]:
    response = server.client.post(path, json={"model": "demo"} | body)
    assert response.status_code == status, response.text
    return response.json()


@pytest.mark.parametrize("text", ["What is a KV cache?", "本地运行大模型 🦙", ""])
def test_there_and_back(server: LiveServer, text: str) -> None:
    tokens = posted(server, "/tokenize", content=text)["tokens"]
    assert all(isinstance(token, int) for token in tokens)
    assert posted(server, "/detokenize", tokens=tokens)["content"].strip() == text


def test_pieces_are_texts_or_bytes(server: LiveServer) -> None:
    pieces = posted(server, "/tokenize", model="bytes", content="a本", with_pieces=True)["tokens"]
    assert [row["piece"] for row in pieces] == ["a", *([byte] for byte in "本".encode())]
    assert [row["id"] for row in pieces] == posted(server, "/tokenize", model="bytes", content="a本")["tokens"]


def test_control_tokens_are_read_unless_the_client_says_otherwise(server: LiveServer) -> None:
    read = posted(server, "/tokenize", model="bytes", content=scripted_model.END)["tokens"]
    plain = posted(server, "/tokenize", model="bytes", content=scripted_model.END, parse_special=False)["tokens"]
    assert len(read) == 1 and len(plain) == len(scripted_model.END)


def test_a_model_for_vectors_has_tokens_too(server: LiveServer) -> None:
    inner = posted(server, "/tokenize", model="encoder", content="the rain")["tokens"]
    whole = posted(server, "/tokenize", model="encoder", content="the rain", add_special=True)["tokens"]
    assert whole[1:-1] == inner and len(inner) == 2
    vector = posted(server, "/v1/embeddings", model="encoder", input=[inner, "the rain"])["data"]
    assert len(vector) == 2
    loaded = server.client.get("/api/bendi/ps").json()["models"]
    assert [row["kind"] for row in loaded if row["model"].startswith("encoder")] == ["embedding"]


@pytest.mark.parametrize("tokens", [[10**9], [-1], "x", [1.5], None])
def test_tokens_that_do_not_exist(server: LiveServer, tokens: Any) -> None:
    assert posted(server, "/detokenize", 400, tokens=tokens)["error"]["message"]


def test_counted_as_answered(server: LiveServer) -> None:
    chat = posted(server, "/v1/chat/completions", messages=QUESTION, max_tokens=1)["usage"]["prompt_tokens"]
    counted = posted(server, "/v1/chat/completions/input_tokens", messages=QUESTION)
    assert counted == {"object": "response.input_tokens", "input_tokens": chat}
    answer = posted(server, "/v1/responses", input=QUESTION[0]["content"], max_output_tokens=2)
    asked = posted(server, "/v1/responses/input_tokens", input=QUESTION[0]["content"])
    assert asked["input_tokens"] == answer["usage"]["input_tokens"] == chat
    more = posted(server, "/v1/responses/input_tokens", input="Why?", previous_response_id=answer["id"])
    assert more["input_tokens"] > chat + 3
    posted(server, "/v1/responses/input_tokens", 404, input="Why?", previous_response_id="resp_none")


def test_earlier_thinking_reaches_the_template(server: LiveServer) -> None:
    def counted(**assistant: str) -> int:
        turns = [*QUESTION, {"role": "assistant", "content": "A cache.", **assistant}, *QUESTION]
        return posted(server, "/v1/chat/completions/input_tokens", model="bytes", messages=turns)["input_tokens"]

    thought = "It holds keys and values."
    assert counted(reasoning_content=thought) == counted() + len(f"{thought}\n\n\n") + len("<think></think>")
