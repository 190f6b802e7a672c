"""OpenAI's endpoints: Batches, and the endpoints that batches go to. Files are in `openai_files.py`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llm_assets.emulator.accounting import Accounting
from llm_assets.emulator.faults import Hit
from llm_assets.emulator.intake import mapped
from llm_assets.emulator.jobs import WINDOW_S, Ending, Engine, asked_hit, hit_of, said_counts
from llm_assets.emulator.limits import Limits
from llm_assets.emulator.models import Question
from llm_assets.emulator.openai_files import Files, OpenAIError, invalid, page_limit
from llm_assets.emulator.openai_lines import Validation, line_error, validate
from llm_assets.emulator.openai_rows import ENDPOINTS, RESPONSES, OpenAIRows
from llm_assets.emulator.replies import json_reply, new_key
from llm_assets.emulator.rows import Answer, Kind, Place, RowDialect, spoiled
from llm_assets.emulator.storage import Row
from llm_assets.emulator.vectors import embedder

NAME = "openai"
_METADATA_MAX, _KEY_MAX, _VALUE_MAX = 16, 64, 512
_OUTPUT_DAYS_S = 30 * 24 * 3600
_CREATE_FIELDS = ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")
_TIMES = (
    *("in_progress_at", "expires_at", "finalizing_at", "completed_at"),
    *("failed_at", "expired_at", "cancelling_at", "cancelled_at"),
)
_ENDED = {"completed": "completed", "expired": "expired", "canceled": "cancelled"}


class OpenAI:
    """The vendor, as the engine and the routes know it."""

    name = NAME

    def __init__(self, engine: Engine, limits: Limits, accounting: Accounting) -> None:
        self._engine, self._storage, self._limits = engine, engine.storage, limits
        self._accounting = accounting
        self.files = Files(engine, limits)
        embed = embedder()
        self._rows = {endpoint: OpenAIRows(endpoint, embed) for endpoint in ENDPOINTS}

    def routes(self) -> list[Route]:
        """All endpoints."""
        base, one = "/v1/batches", "/v1/batches/{batch_id}"
        return [
            *self.files.routes(),
            Route(base, self.create, methods=["POST"], name="openai.create"),
            Route(base, self.list_batches, methods=["GET"], name="openai.list"),
            Route(one, self.retrieve, methods=["GET"], name="openai.retrieve"),
            Route(f"{one}/cancel", self.cancel, methods=["POST"], name="openai.cancel"),
            Route(f"{RESPONSES}/input_tokens", self.count_tokens, methods=["POST"], name="openai.count_tokens"),
            *(Route(path, partial(self.ask, path), methods=["POST"], name="openai.ask") for path in ENDPOINTS),
        ]

    # -- what the engine asks

    def rows(self, batch: Row) -> RowDialect:
        """How requests and results of the batch's endpoint are written."""
        return self._rows[batch["facts"]["endpoint"]]

    def is_error_line(self, kind: Kind) -> bool:
        """Whatever has no answer goes into the error file."""
        return kind is not Kind.SUCCEEDED

    def validated(self, batch: Row) -> dict[str, Any]:
        """Read the input file: the batch is then in progress, or failed."""
        facts, now = batch["facts"], self._engine.clock.now()
        found = Validation()
        source = self.files.path(facts["input_file_id"])
        errors = _fault_errors(batch)
        if not errors and source is None:
            errors = [_no_file(facts["input_file_id"])]
        if not errors and source is not None:
            found = validate(source, facts["endpoint"], self._limits.openai_rows)
            errors = found.errors or self._capacity_errors(found)
        if errors or source is None:
            failed = facts | {"errors": errors, "failed_at": now, "ended_at": now, "model": found.model}
            return {"status": "failed", "facts": failed}
        found.index.save(self._storage.batch_folder(batch["id"]) / "rows")
        started = {"in_progress_at": now, "model": found.model, "prompt_tokens": found.prompt_tokens}
        return {
            "status": "in_progress",
            "rows": len(found.index),
            "accepted": 1,
            "facts": facts | started,
        }

    def ended(self, batch: Row, ending: Ending) -> dict[str, Any]:
        """The two files and the times; files that would be empty are not made."""
        finished = _ENDED[ending.how]
        facts: dict[str, Any] = {f"{finished}_at": ending.at}
        if finished != "cancelled":
            facts["finalizing_at"] = batch["facts"].get("finalizing_at", ending.at)
        expires_s = (batch["facts"].get("output_expires_after") or {}).get("seconds", _OUTPUT_DAYS_S)
        for kind, path in (("output", ending.results), ("error", ending.errors)):
            name = f"{batch['id']}_{kind}.jsonl"
            facts[f"{kind}_file_id"] = (
                self.files.add(path, name, "batch_output", ending.at + expires_s) if path.stat().st_size else None
            )
        if facts["error_file_id"] is None and hit_of(batch, "empty_error_file_id"):
            facts["error_file_id"] = ""
        if hit_of(batch, "expired_file"):
            self.files.forget(facts["output_file_id"], facts["error_file_id"])
        tokens = {"input_tokens": ending.input_tokens, "output_tokens": ending.output_tokens}
        return facts | {"usage": tokens}

    # -- endpoints

    async def ask(self, endpoint: str, request: Request) -> Response:
        """One answer, at once."""
        content = await _json(request)
        rows = self._rows[endpoint]
        question = rows.question(content)
        if not isinstance(question, Question):
            raise OpenAIError(question)
        hit = asked_hit(self._engine, NAME, content)
        if hit is not None and (problem := rows.fault_problem(hit.fault)):
            raise OpenAIError(problem)
        answer = rows.embedding(content) or Answer(await run_in_threadpool(self._engine.ask, question))
        answer = answer if hit is None else spoiled(answer, hit)
        self._accounting.asked(content, answer.reply)
        place = Place(new_key(), 0, "", self._engine.clock.now(), self._engine.model.name)
        return json_reply(rows.body(place, content, answer))

    async def count_tokens(self, request: Request) -> Response:
        """How many tokens a response would read; free."""
        question = self._rows[RESPONSES].question(await _json(request))
        if not isinstance(question, Question):
            raise OpenAIError(question)
        reply = await run_in_threadpool(self._engine.ask, question)
        return json_reply({"object": "response.input_tokens", "input_tokens": reply.input_tokens})

    async def create(self, request: Request) -> Response:
        """Take a batch in; its file is looked at later."""
        wanted = await _json(request)
        _check_create(wanted)
        return json_reply(await run_in_threadpool(self._stored, wanted))

    async def retrieve(self, request: Request) -> Response:
        """One batch."""
        batch = await run_in_threadpool(self._settled, request.path_params["batch_id"])
        return json_reply(self._shown(batch))

    async def list_batches(self, request: Request) -> Response:
        """Batches, newest first."""
        limit = page_limit(request.query_params.get("limit"), default=20, most=100)
        younger_s = request.scope.get("emulator.hide_younger_s", 0.0)
        page = partial(self._page, limit, request.query_params.get("after"), younger_s)
        batches, more = await run_in_threadpool(page)
        data = [self._shown(batch) for batch in batches]
        ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return json_reply({"object": "list", "data": data, "first_id": ends[0], "last_id": ends[1], "has_more": more})

    async def cancel(self, request: Request) -> Response:
        """Begin to cancel."""
        batch = await run_in_threadpool(self._cancelled, request.path_params["batch_id"])
        return json_reply(self._shown(batch))

    # -- what they do

    def _stored(self, wanted: dict[str, Any]) -> dict[str, Any]:
        source = self.files.path(wanted["input_file_id"])
        if source is None:
            raise invalid(f"No such File object: {wanted['input_file_id']}", param="input_file_id", status=404)
        now = self._engine.clock.now()
        batch: Row = {"id": f"batch_emulator_{new_key()}", "provider": NAME, "status": "validating", "rows": 0}
        with self._storage.transaction():
            facts = {name: wanted.get(name) for name in _CREATE_FIELDS}
            facts |= {"due_at": now + self._engine.settings.latency_s, "expires_at": now + WINDOW_S}
            facts["faults"] = [[hit.fault, dict(hit.options)] for hit in self._hits(source, now)]
            batch |= {"created_at": now, "body": str(source), "facts": facts}
            self._storage.insert("batches", batch)
        self._engine.wake()
        return self._shown(batch)

    def _hits(self, source: Path, now: float) -> list[Hit]:
        with mapped(source) as view:
            return self._engine.faults.batch(NAME, sequence=self._storage.next_sequence("batches"), body=view, now=now)

    def _found(self, batch_id: str) -> Row:
        batch = self._storage.row("batches", batch_id)
        if batch is None or batch["provider"] != NAME or batch["deleted"]:
            raise invalid(f"No batch found with id '{batch_id}'.", status=404)
        return batch

    def _settled(self, batch_id: str) -> Row:
        batch = self._engine.settle(self._found(batch_id))
        if _is_vanished(batch):
            raise invalid(f"No batch found with id '{batch_id}'.", status=404)
        return batch

    def _cancelled(self, batch_id: str) -> Row:
        with self._engine.settling:
            batch = self._settled(batch_id)
            status = _status(batch)
            if batch["status"] in ("ended", "failed", "finalizing"):
                raise invalid(f"Cannot cancel a batch with status '{status}'.", status=409)
            return batch if status == "cancelling" else self._engine.cancel(batch)

    def _page(self, limit: int, after: str | None, younger_s: float) -> tuple[list[Row], bool]:
        latest = self._engine.clock.now() - younger_s if younger_s else float("inf")
        edge = self._found(after)["seq"] if after else 1 << 62
        found = self._storage.query(
            "SELECT * FROM batches WHERE provider = ? AND deleted = 0 AND created_at <= ? AND seq < ?"
            " ORDER BY seq DESC LIMIT ?",
            *(NAME, latest, edge, limit + 1),
        )
        shown = [batch for batch in self._engine.settle_all(found[:limit]) if not _is_vanished(batch)]
        return shown, len(found) > limit

    def _capacity_errors(self, found: Validation) -> list[dict[str, Any]]:
        """The queue of a model, when a test has set its size."""
        most = self._limits.openai_enqueued_tokens
        if most is None:
            return []
        waiting = self._storage.query(
            "SELECT facts FROM batches WHERE provider = ? AND status IN ('in_progress', 'finalizing')", NAME
        )
        tokens = sum(row["facts"].get("prompt_tokens", 0) for row in waiting if row["facts"]["model"] == found.model)
        return [_token_limit(found.model)] if tokens + found.prompt_tokens > most else []

    def _shown(self, batch: Row) -> dict[str, Any]:
        facts = batch["facts"]
        shown = {
            "id": batch["id"],
            "object": "batch",
            "endpoint": facts["endpoint"],
            "model": facts.get("model"),
            "errors": {"object": "list", "data": facts["errors"]} if facts.get("errors") else None,
            "input_file_id": facts["input_file_id"],
            "completion_window": facts["completion_window"],
            "status": _status(batch),
            "output_file_id": facts.get("output_file_id"),
            "error_file_id": facts.get("error_file_id"),
            "created_at": int(batch["created_at"]),
            "request_counts": self._counts(batch),
            "usage": _usage(facts.get("usage") or {}),
            "metadata": facts.get("metadata"),
        }
        times = facts | {"cancelling_at": facts.get("cancel_at")}
        return shown | {name: int(times[name]) if times.get(name) is not None else None for name in _TIMES}

    def _counts(self, batch: Row) -> dict[str, int]:
        if batch["status"] in ("validating", "failed"):
            return {"total": 0, "completed": 0, "failed": 0}
        if batch["status"] != "ended":
            return {"total": batch["rows"], "completed": self._engine.live_done(batch), "failed": 0}
        counts = said_counts(batch)
        # Rows that were not reached are in neither count.
        return {"total": batch["rows"], "completed": counts["succeeded"], "failed": counts["errored"]}


def _status(batch: Row) -> str:
    if batch["status"] == "canceling":
        return "cancelling"
    return _ENDED[batch["facts"]["ending"]] if batch["status"] == "ended" else str(batch["status"])


def _is_vanished(batch: Row) -> bool:
    return batch["status"] == "ended" and hit_of(batch, "vanished") is not None


def _fault_errors(batch: Row) -> list[dict[str, Any]]:
    if hit_of(batch, "token_limit_exceeded"):
        return [_token_limit(batch["facts"].get("model"))]
    if hit_of(batch, "file_not_found"):
        return [_no_file(batch["facts"]["input_file_id"])]
    if hit_of(batch, "line_errors"):
        return [line_error("invalid_json_line", "This line is not parseable as valid JSON.", line=1)]
    return []


def _token_limit(model: str | None) -> dict[str, Any]:
    message = (
        f"Enqueued token limit reached for {model or 'this model'} in organization org-emulator. Please try again once"
        " some in_progress batches have been completed."
    )
    return line_error("token_limit_exceeded", message)


def _no_file(file_id: str) -> dict[str, Any]:
    return line_error("invalid_request", f"Cannot find file {file_id}, or it is not accessible.", param="file_id")


def _usage(tokens: dict[str, int]) -> dict[str, Any]:
    read, wrote = tokens.get("input_tokens", 0), tokens.get("output_tokens", 0)
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": wrote,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + wrote,
    }


def _check_create(wanted: dict[str, Any]) -> None:
    for name in wanted:
        if name not in _CREATE_FIELDS:
            raise invalid(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    for name in _CREATE_FIELDS[:3]:
        if not isinstance(wanted.get(name), str):
            raise invalid(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if wanted["endpoint"] not in ENDPOINTS:
        raise invalid(f"Invalid value: '{wanted['endpoint']}'.", param="endpoint", code="invalid_value")
    if wanted["completion_window"] != "24h":
        raise invalid("Invalid value: expected '24h'.", param="completion_window", code="invalid_value")
    _check_metadata(wanted.get("metadata"))


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or len(metadata) > _METADATA_MAX:
        raise invalid(f"Invalid 'metadata': expected at most {_METADATA_MAX} pairs.", param="metadata")
    for key, value in metadata.items():
        if len(key) > _KEY_MAX or not isinstance(value, str) or len(value) > _VALUE_MAX:
            message = f"Invalid 'metadata': keys of {_KEY_MAX} and texts of {_VALUE_MAX} characters at most."
            raise invalid(message, param="metadata")


async def _json(request: Request) -> dict[str, Any]:
    try:
        found = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise invalid("We could not parse the JSON body of your request.") from None
    if not isinstance(found, dict):
        raise invalid("The body must be a JSON object.")
    return found
