"""OpenAI's validation of an input file, which happens after a batch was created: line by line, errors with numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from llm_assets.emulator.intake import RowIndex, content_digest
from llm_assets.emulator.openai_rows import EMBEDDINGS, is_known_model

ERRORS_LISTED_MAX = 100
EMBEDDING_INPUTS_MAX = 50_000

LineError = dict[str, Any]


def line_error(code: str, message: str, *, line: int | None = None, param: str | None = None) -> LineError:
    """One of `errors.data`."""
    return {"code": code, "message": message, "param": param, "line": line}


@dataclass
class Validation:
    """What became of a file: its rows, or what is wrong with it."""

    index: RowIndex = field(default_factory=RowIndex)
    errors: list[LineError] = field(default_factory=list)
    model: str | None = None
    prompt_tokens: int = 0
    embedding_inputs: int = 0
    seen: set[str] = field(default_factory=set)


def validate(path: Path, endpoint: str, rows_max: int) -> Validation:
    """Read a file as the provider does."""
    found = Validation()
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            raw = line.rstrip(b"\r\n")
            if raw.strip():
                _take_line(found, raw, offset, number, endpoint)
            offset += len(line)
            if len(found.errors) >= ERRORS_LISTED_MAX:
                break
    found.errors += _file_errors(found, rows_max)
    return found


def _take_line(found: Validation, raw: bytes, offset: int, number: int, endpoint: str) -> None:
    try:
        request = orjson.loads(raw)
    except orjson.JSONDecodeError:
        found.errors.append(line_error("invalid_json_line", "This line is not parseable as valid JSON.", line=number))
        return
    errors = list(_line_errors(found, request, number, endpoint))
    found.errors += errors
    if errors:
        return
    found.seen.add(request["custom_id"])
    body = request["body"]
    found.model = body["model"]
    found.prompt_tokens += len(raw) // 4
    if endpoint == EMBEDDINGS:
        found.embedding_inputs += len(body["input"]) if isinstance(body.get("input"), list) else 1
    found.index.add(offset, len(raw), content_digest(body))


def _line_errors(found: Validation, request: Any, number: int, endpoint: str) -> Iterator[LineError]:
    if not isinstance(request, dict):
        yield line_error("invalid_json_line", "This line is not a JSON object.", line=number)
        return
    custom_id = request.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        message = "Missing required parameter: 'custom_id'."
        yield line_error("missing_required_parameter", message, line=number, param="custom_id")
    elif custom_id in found.seen:
        message = f"The custom_id '{custom_id}' is used more than once."
        yield line_error("duplicate_custom_id", message, line=number, param="custom_id")
    if request.get("method") != "POST":
        yield line_error("invalid_method", "The method must be 'POST'.", line=number, param="method")
    if request.get("url") != endpoint:
        message = f"The URL provided for this request does not match the batch endpoint '{endpoint}'."
        yield line_error("url_mismatch", message, line=number, param="url")
    yield from _body_errors(found, request.get("body"), number)


def _body_errors(found: Validation, body: Any, number: int) -> Iterator[LineError]:
    if not isinstance(body, dict):
        yield line_error("missing_required_parameter", "Missing required parameter: 'body'.", line=number, param="body")
        return
    model = body.get("model")
    if not is_known_model(model):
        message = f"The provided model '{model}' is not supported by the Batch API."
        yield line_error("model_not_found", message, line=number, param="body.model")
    elif found.model is not None and model != found.model:
        message = f"The model '{model}' differs from '{found.model}'; a file must hold one model."
        yield line_error("mismatched_model", message, line=number, param="body.model")


def _file_errors(found: Validation, rows_max: int) -> Iterator[LineError]:
    if found.errors:
        return
    if not len(found.index):
        yield line_error("empty_file", "The input file is empty. Please provide at least one request.")
    if len(found.index) > rows_max:
        message = f"The batch holds {len(found.index)} requests; the maximum is {rows_max}."
        yield line_error("too_many_requests", message)
    if found.embedding_inputs > EMBEDDING_INPUTS_MAX:
        message = f"The batch holds {found.embedding_inputs} inputs; the maximum is {EMBEDDING_INPUTS_MAX}."
        yield line_error("too_many_inputs", message)
