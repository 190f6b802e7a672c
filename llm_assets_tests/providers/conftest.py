from __future__ import annotations

from collections.abc import Iterator

import pytest

from llm_assets.records import Task
from llm_assets_tests.providers.http_server import Server, serving

CLOSED = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def task() -> Task:
    return Task("some-model", 200, CLOSED, "answer")
