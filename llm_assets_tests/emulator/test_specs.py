"""Replies against the vendors' published schemas, which are no part of the project: skipped where they are not."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anthropic import Anthropic
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openai import OpenAI

from llm_assets_tests.emulator.clients import anthropic_batch, anthropic_lines, openai_batch, upload
from llm_assets_tests.emulator_process import Emulator

SPECS = Path(__file__).parents[3] / "shared" / "specs"
pytestmark = pytest.mark.skipif(not SPECS.is_dir(), reason=f"the published schemas are not at {SPECS}")

ANTHROPIC_HEADERS = {"authorization": "Bearer x", "anthropic-version": "2026-10-21"}
OPENAI_HEADERS = {"authorization": "Bearer x"}


def check(vendor: str, name: str, value: Any) -> None:
    spec = json.loads(next(SPECS.glob(f"{vendor}_*.json")).read_text())
    validator = Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": spec["components"]})
    problems = [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(value)]
    assert not problems


def without_nulls(value: Any) -> Any:
    """OpenAI really sends nulls that its schema does not allow."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


ROW_FAULTS = ("overloaded", "expired", "canceled", "truncated", "thinking_first", "refusal", "invalid")


def test_anthropic(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.faults([{"fault": fault, "custom_id": f"r{number}"} for number, fault in enumerate(ROW_FAULTS)])
    batch_id = anthropic_batch(anthropic, 10).id
    url = f"{emulator.url}/v1/messages/batches"
    check("anthropic", "MessageBatch", httpx2.get(f"{url}/{batch_id}", headers=ANTHROPIC_HEADERS).json())
    check("anthropic", "ListResponse_MessageBatch_", httpx2.get(url, headers=ANTHROPIC_HEADERS).json())
    for line in anthropic_lines(anthropic, batch_id):
        # Newer than the schema: messages without a container.
        message = line["result"].get("message")
        if message is not None:
            message["container"] = None
            message["usage"] |= {"server_tool_use": None}
            for block in message["content"]:
                block.setdefault("citations", None)
            if message["content"] and message["content"][0]["type"] == "thinking":
                del message["content"][0]["citations"]
        check("anthropic", "MessageBatchIndividualResponse", line)
    check("anthropic", "ErrorResponse", httpx2.get(f"{url}/no", headers=ANTHROPIC_HEADERS).json())
    deleted = httpx2.delete(f"{url}/{batch_id}", headers=ANTHROPIC_HEADERS).json()
    check("anthropic", "DeleteMessageBatchResponse", deleted)


def test_openai(emulator: Emulator, openai: OpenAI) -> None:
    emulator.faults([{"fault": "line_errors", "times": 1}])
    failed, done = openai_batch(openai), openai_batch(openai)
    for path, name in [
        (f"/batches/{failed.id}", "Batch"),
        (f"/batches/{done.id}", "Batch"),
        ("/batches", "ListBatchesResponse"),
        ("/files", "ListFilesResponse"),
        (f"/files/{upload(openai, [])}", "OpenAIFile"),
    ]:
        reply = httpx2.get(emulator.openai_url + path, headers=OPENAI_HEADERS).json()
        check("openai", name, without_nulls(reply))
    check("openai", "ErrorResponse", httpx2.get(f"{emulator.openai_url}/files/no", headers=OPENAI_HEADERS).json())
    deleted = httpx2.delete(f"{emulator.openai_url}/files/{done.input_file_id}", headers=OPENAI_HEADERS).json()
    check("openai", "DeleteFileResponse", deleted)
