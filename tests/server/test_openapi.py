"""The description of the server is valid, complete and says who may do what."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from live import LiveServer
from openapi_spec_validator import OpenAPIV31SpecValidator

from bendi.server.app import ALL
from bendi.server.table import Table


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found = json.loads(Table(ALL).document)
    assert isinstance(found, dict)
    return found


def test_it_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_every_endpoint_is_in_it(document: dict[str, Any]) -> None:
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert described == {(endpoint.method, re.sub(r":\w+\}", "}", endpoint.path)) for endpoint in ALL}
    operations = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(operations) == len(set(operations))


def test_it_says_what_needs_a_key_and_how_errors_look(document: dict[str, Any]) -> None:
    for endpoint in ALL:
        operation = document["paths"][re.sub(r":\w+\}", "}", endpoint.path)][endpoint.method.lower()]
        assert operation["security"] == ([] if endpoint.scope == "public" else [{"bearer": []}, {"apiKey": []}])
        assert ("401" in operation["responses"]) == (endpoint.scope != "public")
        content = operation["responses"][str(endpoint.status)].get("content", {})
        assert ("text/event-stream" in content) == (endpoint.stream == "sse")
        assert ("application/x-ndjson" in content) == (endpoint.stream == "ndjson")
        assert ("requestBody" in operation) == (endpoint.body is not None)


def test_every_status_stands_in_it_by_its_number(document: dict[str, Any]) -> None:
    for endpoint in ALL:
        operation = document["paths"][re.sub(r":\w+\}", "}", endpoint.path)][endpoint.method.lower()]
        statuses = {endpoint.status, *endpoint.errors, *endpoint.also, 400, 403, 413, 414, 415, 431, 500}
        assert statuses <= {int(status) for status in operation["responses"]}


def test_what_stands_in_an_address_is_never_null(document: dict[str, Any]) -> None:
    fit = {field["name"]: field["schema"] for field in document["paths"]["/api/bendi/fit"]["get"]["parameters"]}
    assert fit["thinking"] == {"type": "boolean", "title": "Thinking"}
    assert fit["kind"]["enum"] == ["dense", "moe"] and "default" not in fit["kind"]
    for item in document["paths"].values():
        for operation in item.values():
            assert ": null" not in json.dumps(operation.get("parameters", []))
            assert '"null"' not in json.dumps(operation.get("parameters", []))


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert name in document["components"]["schemas"]


def test_it_is_served(server: LiveServer, document: dict[str, Any]) -> None:
    assert server.client.get("/openapi.json").json() == document
