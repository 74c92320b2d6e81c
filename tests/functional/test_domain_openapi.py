"""The description of the API: the file is that of the app, and the app keeps to it.

What no request can say is looked for here too: values without bounds, and places to fetch from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastapi.openapi.models import OpenAPI

from packetcloud.domain_controller.api.access import ACCESS
from packetcloud.domain_controller.api.openapi import openapi_text
from packetcloud.domain_controller.api.problems import MEDIA_TYPE

FILE = Path(__file__).parents[2] / "docs" / "reference" / "domain-api.json"
NO_URL = ("url", "uri", "host", "address", "callback", "webhook", "path", "file", "endpoint")


def schemas_of(document: dict[str, Any]) -> dict[str, Any]:
    schemas: dict[str, Any] = document["components"]["schemas"]
    return schemas


def test_the_file_is_that_of_the_app() -> None:
    """Else: python -m packetcloud.domain_controller.api.openapi docs/reference/domain-api.json"""
    assert FILE.read_text() == openapi_text()


def test_the_file_is_openapi() -> None:
    """As the standard's own schema has it, and every reference leads somewhere."""
    document = json.loads(FILE.read_text())
    OpenAPI.model_validate(document)
    text = FILE.read_text()
    for part in text.split('"$ref": "')[1:]:
        target = part.partition('"')[0]
        assert target.removeprefix("#/components/schemas/") in schemas_of(document), target


def test_every_endpoint_says_how_it_refuses() -> None:
    """By problem details, with the schema that they have."""
    document = json.loads(FILE.read_text())
    for method, path in ACCESS:
        answers = document["paths"][path][method.lower()]["responses"]
        for status in ("400", "401", "403", "404", "409", "422", "503"):
            assert list(answers[status]["content"]) == [MEDIA_TYPE], (method, path, status)


def test_every_value_is_bounded() -> None:
    """Numbers from below and above, texts and lists in length, objects in their fields."""
    document = json.loads(FILE.read_text())
    asked = _reachable(document)
    assert len(asked) >= 15
    loose: list[str] = []
    for name in asked:
        schema = schemas_of(document)[name]
        if schema["type"] == "object" and schema.get("additionalProperties") is not False:
            loose.append(name)
        for field, value in schema.get("properties", {}).items():
            loose += [f"{name}.{field}" for one in _leaves(value) if not _is_bounded(one)]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for parameter in operation.get("parameters", []):
                where = f"{method} {path} {parameter['name']}"
                loose += [where for one in _leaves(parameter["schema"]) if not _is_bounded(one)]
    assert loose == []


def test_no_request_names_a_place_to_fetch_from() -> None:
    """No field, parameter or format by which the controller could be sent somewhere."""
    document = json.loads(FILE.read_text())
    fields = [
        (name, field, value)
        for name in _reachable(document)
        for field, value in schemas_of(document)[name].get("properties", {}).items()
    ]
    for name, field, value in fields:
        if (name, field) == ("NearAsked", "host"):
            continue  # the GUID of a host
        assert not set(field.split("_")) & set(NO_URL), (name, field)
        assert all(leaf.get("format") is None for leaf in _leaves(value)), (name, field)


def _reachable(document: dict[str, Any]) -> set[str]:
    """Return the names of all schemas of request bodies."""
    todo = [
        content["schema"]
        for item in document["paths"].values()
        for operation in item.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
    ]
    found: set[str] = set()
    while todo:
        for part in json.dumps(todo.pop()).split('"$ref": "#/components/schemas/')[1:]:
            name = part.partition('"')[0]
            if name not in found:
                found.add(name)
                todo.append(schemas_of(document)[name])
    return found


def _leaves(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a value may be."""
    if "anyOf" in value:
        return [leaf for one in value["anyOf"] for leaf in _leaves(one)]
    if value.get("type") == "array":
        return [value, *_leaves(value["items"])]
    return [value]


def _is_bounded(value: dict[str, Any]) -> bool:
    if "$ref" in value or "enum" in value or "const" in value:
        return True
    match value.get("type"):
        case "integer":
            return "minimum" in value and "maximum" in value
        case "string":
            return "maxLength" in value or "pattern" in value
        case "array":
            return "maxItems" in value
        case "boolean" | "null":
            return True
    return False
