"""The emulator's own endpoints, `/_emulator/*`: how a test or a person makes it do something, and asks what it saw."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from llm_assets.emulator.accounting import Accounting
from llm_assets.emulator.clock import rfc3339
from llm_assets.emulator.faults import MENU, FaultFileError, parse_rules
from llm_assets.emulator.jobs import Engine
from llm_assets.emulator.limits import Limits
from llm_assets.emulator.replies import json_reply

_PAGE = """<!doctype html><title>llm_assets emulator</title><h1>This is the llm_assets emulator</h1>
<p>It looks like the batch APIs of Anthropic (base URL: this address) and OpenAI (base URL: this address + /v1), and is
neither. Its answers come from <b>{model}</b>. Nothing here costs money, and nothing here is true.
<p>See <a href="/_emulator/accounting">accounting</a>, <a href="/_emulator/faults">faults</a>,
<a href="/_emulator/clock">clock</a>, <a href="/_emulator/settings">settings</a>.
"""


class ControlError(Exception):
    """A request to the emulator itself that makes no sense."""


class Control:
    """Clock, hold, settings, faults, accounting, reset."""

    def __init__(self, engine: Engine, limits: Limits, accounting: Accounting) -> None:
        self._engine, self._limits, self._accounting = engine, limits, accounting
        self._latency_s = engine.settings.latency_s

    def routes(self) -> list[Route]:
        """All endpoints."""
        base = "/_emulator"
        return [
            Route("/", self.page, methods=["GET"]),
            Route(base, self.about, methods=["GET"]),
            Route(f"{base}/clock", self.clock, methods=["GET", "POST"]),
            Route(f"{base}/hold", self.hold, methods=["GET", "POST"]),
            Route(f"{base}/release", self.release, methods=["POST"]),
            Route(f"{base}/settings", self.settings, methods=["GET", "PUT"]),
            Route(f"{base}/faults", self.faults, methods=["GET", "PUT"]),
            Route(f"{base}/accounting", self.accounting, methods=["GET"]),
            Route(f"{base}/reset", self.reset, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """What this is, for people."""
        return HTMLResponse(_PAGE.format(model=self._engine.model.name))

    async def about(self, request: Request) -> Response:
        """What this is, for programs."""
        pages = ["clock", "hold", "settings", "faults", "accounting", "reset"]
        return json_reply(
            {
                "emulator": "llm_assets",
                "model": self._engine.model.name,
                "says": "A local stand-in for the batch APIs of Anthropic and OpenAI; it is neither.",
                "pages": [f"/_emulator/{page}" for page in pages],
            }
        )

    async def clock(self, request: Request) -> Response:
        """`{"advance_s": 3600}`, `{"frozen": true}`, or both."""
        clock = self._engine.clock
        if request.method == "POST":
            wanted = await _object(request, {"advance_s": (int, float), "frozen": (bool,)})
            if "frozen" in wanted:
                clock.freeze(wanted["frozen"])
            clock.advance(wanted.get("advance_s", 0))
            self._engine.storage.keep_setting("clock", clock.state())
            self._engine.wake()
        now = clock.now()
        return json_reply({"now": rfc3339(now), "epoch_s": now, "frozen": clock.frozen_at is not None})

    async def hold(self, request: Request) -> Response:
        """`{"held": true}` keeps batches in progress."""
        if request.method == "POST":
            self._hold((await _object(request, {"held": (bool,)})).get("held", True))
        return json_reply({"held": self._engine.settings.held})

    async def release(self, request: Request) -> Response:
        """Let batches go on."""
        self._hold(False)
        return json_reply({"held": False})

    async def settings(self, request: Request) -> Response:
        """`{"latency_s": 5, "limits": {"anthropic_bytes": 1000}}`; latency is that of batches created from now on."""
        if request.method == "PUT":
            wanted = await _object(request, {"latency_s": (int, float), "limits": (dict,)})
            try:
                self._limits.change(wanted.get("limits", {}))
            except ValueError as error:
                raise ControlError(str(error)) from None
            self._engine.settings.latency_s = wanted.get("latency_s", self._engine.settings.latency_s)
        return json_reply({"latency_s": self._engine.settings.latency_s, "limits": self._limits.as_dict()})

    async def faults(self, request: Request) -> Response:
        """The rules in force, how often each fault was injected, and the menu; PUT replaces the rules."""
        storage, clock = self._engine.storage, self._engine.clock
        if request.method == "PUT":
            found = _json(await request.body())
            try:
                rules = parse_rules(found)
            except FaultFileError as error:
                raise ControlError(str(error)) from None
            with storage.transaction():
                self._engine.faults.replace(rules, set_at=clock.now())
                storage.keep_setting("faults", {"rules": found, "set_at": clock.now()})
                storage.execute_many("DELETE FROM fired WHERE rule <> ?", [("",)])
        kept = storage.setting("faults") or {"rules": []}
        menu = [
            {"fault": fault.name, "scope": fault.scope, "says": fault.says, "providers": fault.providers}
            for fault in MENU.values()
        ]
        return json_reply({"rules": kept["rules"], "injected": dict(self._engine.faults.injected), "menu": menu})

    async def accounting(self, request: Request) -> Response:
        """Totals, or with `?detail=batches|rows|contents` what they are made of."""
        query = request.query_params
        detail = query.get("detail")
        if detail == "rows":
            return StreamingResponse(self._accounting.rows(), media_type="application/x-jsonl")
        if detail == "contents":
            least = {name: _number(query.get(name, "0")) for name in ("billed_min", "accepted_min")}
            return StreamingResponse(self._accounting.contents(**least), media_type="application/x-jsonl")
        if detail == "batches":
            return json_reply({"batches": await run_in_threadpool(self._accounting.batches)})
        if detail is not None:
            raise ControlError(f"found detail={detail}; expected batches, rows or contents")
        return json_reply(await run_in_threadpool(self._accounting.totals))

    async def reset(self, request: Request) -> Response:
        """Forget everything: batches, files, faults, clock, counts."""
        await run_in_threadpool(self._reset)
        return json_reply({"reset": True})

    def _reset(self) -> None:
        engine = self._engine
        with engine.settling:
            engine.storage.clear()
            engine.faults.replace([], set_at=0.0)
            engine.faults.injected.clear()
            engine.settings.held = False
            engine.settings.latency_s = self._latency_s
            engine.clock.freeze(False)
            engine.clock.offset_s = 0.0
            self._limits.change(Limits().as_dict())
            self._accounting.reset()

    def _hold(self, held: bool) -> None:
        self._engine.settings.held = held
        self._engine.storage.keep_setting("held", held)
        self._engine.wake()


def error_reply(error: Exception) -> Response:
    """A request that makes no sense."""
    return json_reply({"error": str(error)}, 400)


def _number(found: str) -> int:
    if not found.isdigit():
        raise ControlError(f"found {found!r}; expected a number")
    return int(found)


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ControlError(f"the body is no JSON: {error}") from None


async def _object(request: Request, fields: dict[str, tuple[type, ...]]) -> dict[str, Any]:
    found = _json(await request.body())
    if not isinstance(found, dict):
        raise ControlError(f"found {type(found).__name__}; expected an object with {', '.join(fields)}")
    for name, value in found.items():
        if name not in fields:
            raise ControlError(f"found the key {name!r}; expected {', '.join(fields)}")
        if not isinstance(value, fields[name]) or (isinstance(value, bool) and bool not in fields[name]):
            raise ControlError(f"{name} is {value!r}; expected {' or '.join(one.__name__ for one in fields[name])}")
    return found
