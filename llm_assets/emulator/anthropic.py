"""Anthropic's endpoints: Message Batches, and `/v1/messages` itself."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from llm_assets.emulator.accounting import Accounting
from llm_assets.emulator.anthropic_rows import INVALID, AnthropicRows, error_envelope, message
from llm_assets.emulator.clock import rfc3339
from llm_assets.emulator.intake import BodyProblem, RowIndex, TooManyRows, index_requests, mapped
from llm_assets.emulator.jobs import WINDOW_S, Ending, Engine, asked_hit, hit_of, said_counts
from llm_assets.emulator.limits import Limits
from llm_assets.emulator.models import Question
from llm_assets.emulator.replies import BodyTooLarge, body_to_disk, file_reply, json_reply, new_key
from llm_assets.emulator.rows import Answer, Kind, Place, Problem, RowDialect, spoiled
from llm_assets.emulator.storage import Row

NAME = "anthropic"
VERSIONS = ("2026-10-21",)
RESULTS_KEPT_S = 29 * 24 * 3600.0
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LIMIT_MAX, _LIMIT = 1000, 20
_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control")
_FOREIGN_URL = "https://results.example/"
_COUNTS = ("succeeded", "errored", "canceled", "expired")
_QUEUE_FULL = "This batch would exceed the number of batch requests that your organization may have in the queue."
_TOO_LARGE = "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n</body>\r\n</html>\r\n"


class ApiError(Exception):
    """A reply that is an error."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(kind, message, status)


def not_found(message: str = "Not found") -> ApiError:
    """A 404."""
    return ApiError(404, "not_found_error", message)


def error_reply(problem: Problem, request_id: str) -> Response:
    """An error as the API gives it."""
    return json_reply(error_envelope(problem, request_id), problem.status)


def check_headers(headers: Any) -> ApiError | None:
    """What is wrong with a call before anything else is looked at."""
    bearer = headers.get("authorization", "")
    if not (bearer.lower().startswith("bearer ") and bearer[7:].strip()) and not headers.get("x-api-key"):
        return ApiError(401, "authentication_error", "x-api-key header is required")
    version = headers.get("anthropic-version")
    if version is None:
        return ApiError(400, INVALID, "anthropic-version: header is required")
    if version not in VERSIONS:
        return ApiError(400, INVALID, f'anthropic-version: "{version}" is not a valid version')
    return None


class Anthropic:
    """The vendor, as the engine and the routes know it."""

    name = NAME

    def __init__(self, engine: Engine, limits: Limits, accounting: Accounting) -> None:
        self._engine, self._storage, self._limits = engine, engine.storage, limits
        self._accounting = accounting
        self._rows = AnthropicRows()

    def routes(self) -> list[Route]:
        """All endpoints."""
        base, one = "/v1/messages/batches", "/v1/messages/batches/{batch_id}"
        return [
            Route("/v1/messages", self.ask, methods=["POST"], name="anthropic.ask"),
            Route("/v1/messages/count_tokens", self.count_tokens, methods=["POST"], name="anthropic.count_tokens"),
            Route(base, self.create, methods=["POST"], name="anthropic.create"),
            Route(base, self.list_batches, methods=["GET"], name="anthropic.list"),
            Route(one, self.retrieve, methods=["GET"], name="anthropic.retrieve"),
            Route(one, self.delete, methods=["DELETE"], name="anthropic.delete"),
            Route(f"{one}/cancel", self.cancel, methods=["POST"], name="anthropic.cancel"),
            Route(f"{one}/results", self.results, methods=["GET"], name="anthropic.results"),
        ]

    # -- what the engine asks

    def rows(self, batch: Row) -> RowDialect:
        """How requests and results are written."""
        return self._rows

    def validated(self, batch: Row) -> dict[str, Any]:
        """Nothing to do: Anthropic's batches begin in progress."""
        return {"status": "in_progress"}

    def is_error_line(self, kind: Kind) -> bool:
        """All lines go into one file."""
        return False

    def ended(self, batch: Row, ending: Ending) -> dict[str, Any]:
        """Nothing to add."""
        return {}

    # -- endpoints

    async def ask(self, request: Request) -> Response:
        """One message, at once."""
        content = await _json(request)
        question = self._rows.question({**content, "stream": False} if "stream" in content else content)
        if not isinstance(question, Question):
            raise ApiError(question.status, question.type, question.message)
        if content.get("stream"):
            raise ApiError(400, INVALID, "stream: the emulator does not stream")
        hit = asked_hit(self._engine, NAME, content)
        if hit is not None and (problem := self._rows.fault_problem(hit.fault)):
            raise ApiError(problem.status, problem.type, problem.message)
        answer = Answer(await run_in_threadpool(self._engine.ask, question))
        answer = answer if hit is None else spoiled(answer, hit)
        self._accounting.asked(content, answer.reply)
        place = Place(new_key(), 0, "", self._engine.clock.now(), self._engine.model.name)
        return json_reply(message(place, content, answer, "standard"))

    async def count_tokens(self, request: Request) -> Response:
        """How many tokens a message reads; free. It takes what is read, and nothing about the answer."""
        content = await _json(request)
        if extra := next((name for name in content if name not in _COUNTED), None):
            raise ApiError(400, INVALID, f"{extra}: Extra inputs are not permitted")
        question = self._rows.question({**content, "max_tokens": 1})
        if not isinstance(question, Question):
            raise ApiError(question.status, question.type, question.message)
        reply = await run_in_threadpool(self._engine.ask, question)
        return json_reply({"input_tokens": reply.input_tokens})

    async def create(self, request: Request) -> Response:
        """Take a batch in: its body is on disk and its rows are indexed before it is acknowledged."""
        try:
            body = await body_to_disk(request, self._storage.incoming, self._limits.anthropic_bytes)
        except BodyTooLarge:
            return HTMLResponse(_TOO_LARGE, 413)
        return json_reply(await run_in_threadpool(self._take_in, body, str(request.base_url)))

    async def retrieve(self, request: Request) -> Response:
        """One batch."""
        batch = await run_in_threadpool(self._settled, request.path_params["batch_id"])
        foreign = request.scope["emulator.foreign_url"]
        return json_reply(self._shown(batch, _FOREIGN_URL if foreign else str(request.base_url)))

    async def list_batches(self, request: Request) -> Response:
        """Batches, newest first."""
        query = request.query_params
        limit = _limit(query.get("limit"))
        younger_s = request.scope.get("emulator.hide_younger_s", 0.0)
        page = partial(self._page, limit, query.get("after_id"), query.get("before_id"), younger_s)
        batches, more = await run_in_threadpool(page)
        data = [self._shown(batch, str(request.base_url)) for batch in batches]
        ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return json_reply({"data": data, "has_more": more, "first_id": ends[0], "last_id": ends[1]})

    async def cancel(self, request: Request) -> Response:
        """Begin to cancel."""
        batch = await run_in_threadpool(self._canceled, request.path_params["batch_id"])
        return json_reply(self._shown(batch, str(request.base_url)))

    async def delete(self, request: Request) -> Response:
        """Delete a batch that has ended."""
        batch = await run_in_threadpool(self._settled, request.path_params["batch_id"])
        if batch["status"] != "ended":
            raise ApiError(400, INVALID, f"Batch {batch['id']} cannot be deleted while it is in progress; cancel it")
        self._storage.update("batches", batch["id"], {"deleted": 1})
        return json_reply({"id": batch["id"], "type": "message_batch_deleted"})

    async def results(self, request: Request) -> Response:
        """The result lines, as a stream."""
        batch = await run_in_threadpool(self._settled, request.path_params["batch_id"])
        if batch["status"] != "ended" or self._archived_at(batch) is not None:
            raise not_found(f"Results of batch {batch['id']} are not available")
        path = self._storage.batch_folder(batch["id"]) / "results.jsonl"
        share, shuffled = request.scope["emulator.share"], request.scope["emulator.shuffled"]
        return file_reply(path, "application/x-jsonl", share=share, shuffled=shuffled)

    # -- what they do

    def _take_in(self, body: Path, base_url: str) -> dict[str, Any]:
        try:
            index = self._indexed(body)
        except BodyProblem as problem:
            body.unlink()
            raise ApiError(400, INVALID, str(problem)) from None
        except TooManyRows:
            body.unlink()
            raise ApiError(
                413, "request_too_large", f"requests: at most {self._limits.anthropic_rows} are allowed"
            ) from None
        if self._is_full(len(index)):
            body.unlink()
            raise ApiError(429, "rate_limit_error", _QUEUE_FULL)
        batch = self._stored(body, index)
        self._engine.wake()
        return self._shown(batch, base_url)

    def _is_full(self, more: int) -> bool:
        """Whether the queue of requests, when a test has set its size, has no room for so many more."""
        most = self._limits.anthropic_queued_requests
        if most is None:
            return False
        waiting = self._storage.query("SELECT id, rows FROM batches WHERE provider = ? AND status <> 'ended'", NAME)
        settled = (self._engine.settle(self._found(row["id"])) for row in waiting)
        queued: int = sum(batch["rows"] for batch in settled if batch["status"] != "ended")
        return more + queued > most

    def _indexed(self, body: Path) -> RowIndex:
        return index_requests(body, lambda: partial(_check_row, set()), self._limits.anthropic_rows)

    def _stored(self, body: Path, index: RowIndex) -> Row:
        """Everything on disk, then the row in the database: from here on the batch exists."""
        batch_id = f"msgbatch_emulator_{new_key()}"
        kept = self._storage.bodies / batch_id
        body.rename(kept)
        index.save(self._storage.batch_folder(batch_id) / "rows")
        now = self._engine.clock.now()
        with self._storage.transaction(), mapped(kept) as view:
            hits = self._engine.faults.batch(NAME, sequence=self._storage.next_sequence("batches"), body=view, now=now)
            facts = {
                "due_at": now + self._engine.settings.latency_s,
                "faults": [[hit.fault, dict(hit.options)] for hit in hits],
            }
            batch = {"id": batch_id, "provider": NAME, "status": "in_progress", "rows": len(index)}
            batch |= {"created_at": now, "body": str(kept), "facts": facts, "accepted": 1}
            self._storage.insert("batches", batch)
        return batch

    def _found(self, batch_id: str) -> Row:
        batch = self._storage.row("batches", batch_id)
        if batch is None or batch["provider"] != NAME or batch["deleted"]:
            raise not_found(f"Batch {batch_id} not found")
        return batch

    def _settled(self, batch_id: str) -> Row:
        batch = self._engine.settle(self._found(batch_id))
        if batch["status"] == "ended" and hit_of(batch, "vanished"):
            raise not_found(f"Batch {batch_id} not found")
        return batch

    def _canceled(self, batch_id: str) -> Row:
        with self._engine.settling:
            batch = self._settled(batch_id)
            if batch["status"] == "ended":
                raise ApiError(400, INVALID, f"Batch {batch_id} has already ended")
            return batch if batch["status"] == "canceling" else self._engine.cancel(batch)

    def _page(
        self, limit: int, after_id: str | None, before_id: str | None, younger_s: float
    ) -> tuple[list[Row], bool]:
        latest = self._engine.clock.now() - younger_s if younger_s else float("inf")
        where, order = "seq > ?" if before_id else "seq < ?", "ASC" if before_id else "DESC"
        cursor = before_id or after_id
        edge = self._found(cursor)["seq"] if cursor else 1 << 62
        found = self._storage.query(
            f"SELECT * FROM batches WHERE provider = ? AND deleted = 0 AND created_at <= ? AND {where}"  # noqa: S608
            f" ORDER BY seq {order} LIMIT ?",
            *(NAME, latest, edge, limit + 1),
        )
        page = found[:limit][::-1] if before_id else found[:limit]
        shown = [batch for batch in self._engine.settle_all(page) if not _is_vanished(batch)]
        return shown, len(found) > limit

    def _archived_at(self, batch: Row) -> float | None:
        if batch["status"] != "ended":
            return None
        if hit_of(batch, "results_gone"):
            return float(batch["facts"]["ended_at"])
        until = float(batch["created_at"]) + RESULTS_KEPT_S
        return until if self._engine.clock.now() >= until else None

    def _shown(self, batch: Row, base_url: str) -> dict[str, Any]:
        facts, ended = batch["facts"], batch["status"] == "ended"
        archived_at = self._archived_at(batch)
        url = f"{base_url.rstrip('/')}/v1/messages/batches/{batch['id']}/results"
        # No live progress: until the end every row is processing.
        counts = {"processing": 0, **said_counts(batch)} if ended else dict.fromkeys(("processing", *_COUNTS), 0)
        if not ended:
            counts["processing"] = batch["rows"]
        return {
            "id": batch["id"],
            "type": "message_batch",
            "processing_status": batch["status"],
            "request_counts": counts,
            "ended_at": rfc3339(facts["ended_at"]) if ended else None,
            "created_at": rfc3339(batch["created_at"]),
            "expires_at": rfc3339(batch["created_at"] + WINDOW_S),
            "archived_at": rfc3339(archived_at),
            "cancel_initiated_at": rfc3339(facts.get("cancel_at")),
            "results_url": url if ended and archived_at is None else None,
        }


def _is_vanished(batch: Row) -> bool:
    return batch["status"] == "ended" and hit_of(batch, "vanished") is not None


def _check_row(seen: set[str], number: int, row: Any) -> None:
    """Only the custom_id and the shape are checked at once."""
    where = f"requests.{number}"
    if not isinstance(row, dict):
        raise BodyProblem(f"{where}: Input should be a valid dictionary")
    custom_id = row.get("custom_id")
    if "custom_id" not in row or "params" not in row:
        raise BodyProblem(f"{where}.{'params' if 'custom_id' in row else 'custom_id'}: Field required")
    if not isinstance(custom_id, str) or not _CUSTOM_ID.fullmatch(custom_id):
        raise BodyProblem(f"{where}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
    if not isinstance(row["params"], dict):
        raise BodyProblem(f"{where}.params: Input should be a valid dictionary")
    if len(row) > 2:
        extra = next(name for name in row if name not in ("custom_id", "params"))
        raise BodyProblem(f"{where}.{extra}: Extra inputs are not permitted")
    if custom_id in seen:
        raise BodyProblem(f"{where}.custom_id: custom_id must be unique; {custom_id!r} was used before")
    seen.add(custom_id)


def _limit(found: str | None) -> int:
    if found is None:
        return _LIMIT
    if not found.isdigit() or not 1 <= int(found) <= _LIMIT_MAX:
        raise ApiError(400, INVALID, f"limit: Input should be between 1 and {_LIMIT_MAX}")
    return int(found)


async def _json(request: Request) -> dict[str, Any]:
    try:
        found = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise ApiError(400, INVALID, f"The request body is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise ApiError(400, INVALID, "The request body must be a JSON object")
    return found
