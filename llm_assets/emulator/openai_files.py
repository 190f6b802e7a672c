"""OpenAI's Files: uploads to disk, lists, contents. Results of batches are files too."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import IO, Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llm_assets.emulator.jobs import Engine
from llm_assets.emulator.limits import Limits
from llm_assets.emulator.openai_rows import INVALID, error_envelope
from llm_assets.emulator.replies import file_reply, json_reply, new_key
from llm_assets.emulator.rows import Problem
from llm_assets.emulator.storage import Row

_KEPT_S = 30 * 24 * 3600
_EXPIRES_MIN_S, _EXPIRES_MAX_S = 3600, 2_592_000
_PURPOSES = ("batch", "batch_output", "assistants", "fine-tune", "vision", "user_data", "evals")
_LIST_MAX = 10_000


class OpenAIError(Exception):
    """A reply that is an error."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def invalid(message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> OpenAIError:
    """An `invalid_request_error`."""
    return OpenAIError(Problem(INVALID, message, status, code, param))


def error_reply(problem: Problem) -> Response:
    """An error as the API gives it."""
    return json_reply(error_envelope(problem), problem.status)


def check_headers(headers: Any) -> OpenAIError | None:
    """What is wrong with a call before anything else is looked at."""
    bearer = headers.get("authorization", "")
    if bearer.lower().startswith("bearer ") and bearer[7:].strip():
        return None
    return invalid("You didn't provide an API key.", status=401, code=None)


def page_limit(found: str | None, *, default: int, most: int) -> int:
    """The `limit` of a list."""
    if found is None:
        return default
    if not found.isdigit() or not 1 <= int(found) <= most:
        raise invalid(f"Invalid 'limit': expected a number from 1 to {most}.", param="limit", code="invalid_value")
    return int(found)


class Files:
    """`/v1/files`."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine, self._storage, self._limits = engine, engine.storage, limits

    def routes(self) -> list[Route]:
        """All endpoints."""
        one = "/v1/files/{file_id}"
        return [
            Route("/v1/files", self.upload, methods=["POST"], name="openai.upload"),
            Route("/v1/files", self.list_files, methods=["GET"], name="openai.list_files"),
            Route(one, self.retrieve, methods=["GET"], name="openai.retrieve_file"),
            Route(one, self.delete, methods=["DELETE"], name="openai.delete_file"),
            Route(f"{one}/content", self.content, methods=["GET"], name="openai.results"),
        ]

    # -- what batches ask

    def path(self, file_id: str) -> Path | None:
        """Where a file lies; None when it is not (any more) there."""
        found = self._live(file_id)
        return Path(found["path"]) if found else None

    def add(self, path: Path, filename: str, purpose: str, expires_at: float | None) -> str:
        """Make a file known that is already in place."""
        row: Row = {"id": f"file-emulator-{new_key()}", "filename": filename, "purpose": purpose, "path": str(path)}
        row |= {"bytes": path.stat().st_size, "created_at": self._engine.clock.now(), "expires_at": expires_at}
        self._storage.insert("files", row)
        return str(row["id"])

    def forget(self, *file_ids: str | None) -> None:
        """Let files expire before their time."""
        for file_id in file_ids:
            if file_id:
                self._storage.update("files", file_id, {"deleted": 1})

    # -- endpoints

    async def upload(self, request: Request) -> Response:
        """Take a file in; whether its lines make sense is not looked at."""
        try:
            async with request.form(max_files=1) as form:
                upload = _checked(form)
                if (upload.size or 0) > self._limits.openai_bytes:
                    raise invalid(f"File is too large: at most {self._limits.openai_bytes} bytes.", status=413)
                kept_s = _expires_after_s(form)
                purpose = str(form["purpose"])
                row = await run_in_threadpool(self._stored, upload.file, upload.filename or "", purpose, kept_s)
        except MultiPartException as error:
            raise invalid(f"The multipart body cannot be read: {error.message}") from None
        return json_reply(_shown(row))

    async def retrieve(self, request: Request) -> Response:
        """One file's facts."""
        return json_reply(_shown(self._found(request)))

    async def delete(self, request: Request) -> Response:
        """Delete a file."""
        row = self._found(request)
        self._storage.update("files", row["id"], {"deleted": 1})
        return json_reply({"id": row["id"], "object": "file", "deleted": True})

    async def content(self, request: Request) -> Response:
        """What is in a file, as a stream."""
        path = Path(self._found(request)["path"])
        share, shuffled = request.scope["emulator.share"], request.scope["emulator.shuffled"]
        return file_reply(path, "application/octet-stream", share=share, shuffled=shuffled)

    async def list_files(self, request: Request) -> Response:
        """Files, newest first."""
        query = request.query_params
        limit = page_limit(query.get("limit"), default=_LIST_MAX, most=_LIST_MAX)
        page = partial(self._page, limit, query.get("after"), query.get("purpose"), query.get("order", "desc"))
        rows, more = await run_in_threadpool(page)
        data = [_shown(row) for row in rows]
        ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return json_reply({"object": "list", "data": data, "first_id": ends[0], "last_id": ends[1], "has_more": more})

    # -- what they do

    def _stored(self, source: IO[bytes], filename: str, purpose: str, kept_s: int) -> Row:
        file_id = f"file-emulator-{new_key()}"
        path = self._storage.bodies / file_id
        source.seek(0)
        with path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        now = self._engine.clock.now()
        row: Row = {"id": file_id, "filename": filename, "purpose": purpose, "path": str(path)}
        row |= {"bytes": path.stat().st_size, "created_at": now, "expires_at": now + kept_s}
        self._storage.insert("files", row)
        return row

    def _live(self, file_id: str) -> Row | None:
        row = self._storage.row("files", file_id)
        if row is None or row["deleted"]:
            return None
        return row if row["expires_at"] is None or self._engine.clock.now() < row["expires_at"] else None

    def _found(self, request: Request) -> Row:
        file_id = request.path_params["file_id"]
        row = self._live(file_id)
        if row is None:
            raise invalid(f"No such File object: {file_id}", param="id", status=404)
        return row

    def _page(self, limit: int, after: str | None, purpose: str | None, order: str) -> tuple[list[Row], bool]:
        rising = order == "asc"
        edge = self._edge(after, rising)
        found = self._storage.query(
            "SELECT * FROM files WHERE deleted = 0"  # noqa: S608 - two fixed words
            " AND (expires_at IS NULL OR expires_at > ?) AND purpose LIKE ?"
            f" AND seq {'>' if rising else '<'} ? ORDER BY seq {'ASC' if rising else 'DESC'} LIMIT ?",
            *(self._engine.clock.now(), purpose or "%", edge, limit + 1),
        )
        return found[:limit], len(found) > limit

    def _edge(self, after: str | None, rising: bool) -> int:
        if after is None:
            return -1 if rising else 1 << 62
        row = self._storage.row("files", after)
        if row is None:
            raise invalid(f"No such File object: {after}", param="after", status=404)
        return int(row["seq"])


def _checked(form: FormData) -> UploadFile:
    upload, purpose = form.get("file"), form.get("purpose")
    if not isinstance(upload, UploadFile):
        raise invalid("'file' is a required property", param="file")
    if purpose not in _PURPOSES:
        raise invalid(f"'{purpose}' is not one of {list(_PURPOSES)} - 'purpose'", param="purpose")
    if purpose == "batch" and not (upload.filename or "").endswith(".jsonl"):
        raise invalid(
            f"Invalid file format for Batch API. Must be .jsonl, found {upload.filename!r}", code="invalid_file_format"
        )
    return upload


def _expires_after_s(form: FormData) -> int:
    anchor, seconds = form.get("expires_after[anchor]"), form.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return _KEPT_S
    if anchor != "created_at":
        raise invalid("Invalid value: expected 'created_at'.", param="expires_after.anchor", code="invalid_value")
    if not str(seconds).isdigit() or not _EXPIRES_MIN_S <= int(str(seconds)) <= _EXPIRES_MAX_S:
        message = f"Invalid value: expected {_EXPIRES_MIN_S} to {_EXPIRES_MAX_S} seconds."
        raise invalid(message, param="expires_after.seconds", code="invalid_value")
    return int(str(seconds))


def _shown(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "object": "file",
        "bytes": row["bytes"],
        "created_at": int(row["created_at"]),
        "expires_at": int(row["expires_at"]) if row["expires_at"] is not None else None,
        "filename": row["filename"],
        "purpose": row["purpose"],
        "status": "processed",
        "status_details": None,
    }
