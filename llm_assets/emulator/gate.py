"""Around every request: it is counted, let in or not, marked as the emulator's, and meets the faults of the transport.

Pure ASGI, so that a connection can really be dropped: the transport is taken from the server, and closed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.responses import HTMLResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from llm_assets.emulator import anthropic, openai_files
from llm_assets.emulator.accounting import Accounting
from llm_assets.emulator.anthropic_rows import error_envelope
from llm_assets.emulator.clock import Clock
from llm_assets.emulator.faults import ANTHROPIC, OPENAI, Faults, Hit
from llm_assets.emulator.replies import json_reply
from llm_assets.emulator.rows import Problem
from llm_assets.emulator.storage import Storage

_HTML = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>\n"
_ANTHROPIC_ERRORS = {
    400: Problem(
        "invalid_request_error", "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'", 400
    ),
    401: Problem("authentication_error", "invalid x-api-key", 401),
    402: Problem("billing_error", "Your credit balance is too low to access the API", 402),
    403: Problem("permission_error", "Your API key does not have permission to use this resource", 403),
    404: Problem("not_found_error", "Not found", 404),
    429: Problem("rate_limit_error", "Number of requests has exceeded your rate limit", 429),
    500: Problem("api_error", "Internal server error", 500),
    503: Problem("api_error", "Service unavailable", 503),
    504: Problem("timeout_error", "Request timed out", 504),
    529: Problem("overloaded_error", "Overloaded", 529),
}
_OPENAI_ERRORS = {
    400: Problem("invalid_request_error", "The emulator was told to refuse this call", 400),
    401: Problem("invalid_request_error", "Incorrect API key provided", 401, "invalid_api_key"),
    403: Problem("permission_error", "You are not allowed to do this", 403),
    404: Problem("invalid_request_error", "Not found", 404),
    429: Problem("rate_limit_error", "Rate limit reached", 429, "rate_limit_exceeded"),
    500: Problem("server_error", "The server had an error while processing your request", 500),
    503: Problem("server_error", "The engine is currently overloaded", 503),
    504: Problem("server_error", "Gateway timeout", 504),
}
_QUOTA = Problem("insufficient_quota", "You exceeded your current quota", 429, "insufficient_quota")
_NOT_FOUND_FAULTS = ("retrieve_404_at_first", "retrieve_404_blip", "results_404_after_ended")


class TransportInState(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol, whose requests say on which transport they came."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Add the transport to the state that requests of this connection get."""
        self.app_state: dict[str, Any] = {**vars(self)["app_state"], "transport": transport}
        super().connection_made(transport)


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP call to a vendor's API."""

    provider: str
    route: str
    request_id: str
    path: str

    @property
    def name(self) -> str:
        """Such as "openai.create"."""
        return f"{self.provider}.{self.route}"


class Gate:
    """The outermost ASGI application."""

    def __init__(
        self,
        app: ASGIApp,
        routes: list[Route],
        *,
        model: str,
        storage: Storage,
        clock: Clock,
        faults: Faults,
        accounting: Accounting,
    ) -> None:
        self._app, self._routes, self._model = app, routes, model
        self._storage, self._clock, self._faults, self._accounting = storage, clock, faults, accounting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, with whatever goes wrong on the way."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = self._call(scope)
        marked = _marked(send, self._headers(call))
        if call is None:
            await self._app(scope, receive, marked)
            return
        self._accounting.calls[call.name] += 1
        scope["emulator.request_id"] = call.request_id
        refusal = _refusal(call, scope)
        if refusal is not None:
            await _drained(receive)
            await refusal(scope, receive, marked)
            return
        await self._with_faults(call, scope, receive, marked)

    async def _with_faults(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        hits = self._hits(call)
        if "slow" in hits:
            send = _late(send, hits["slow"].number("delay_s", 2))
        scope["emulator.hide_younger_s"] = _option(hits, "list_lag", "for_s", 60, absent=0)
        scope["emulator.foreign_url"] = "foreign_results_url" in hits
        scope["emulator.shuffled"] = "shuffled" in hits
        scope["emulator.share"] = _option(hits, "silent_short_read", "share", 0.5, absent=1)
        if "dropped_before_store" in hits:
            await _drained(receive)
            await _drop(scope, receive)
            return
        early = self._early_error(call, hits)
        if early is not None:
            await _drained(receive)
            await early(scope, receive, send)
            return
        await self._then(call, hits, scope, receive, send)

    async def _then(self, call: Call, hits: dict[str, Hit], scope: Scope, receive: Receive, send: Send) -> None:
        """The call itself, and what is made of its reply."""
        if "dropped_after_store" in hits:
            await self._app(scope, receive, _swallow)
            await _drop(scope, receive)
        elif "error_500_after_store" in hits:
            await self._app(scope, receive, _swallow)
            await _error(call, 500)(scope, receive, send)
        elif "html_200" in hits:
            await self._app(scope, receive, _swallow)
            await HTMLResponse(_HTML.format("Please wait"))(scope, receive, send)
        elif "cut_mid_line" in hits:
            await self._app(scope, receive, _Cut(send, scope, hits["cut_mid_line"].number("share", 0.5)))
        else:
            await self._app(scope, receive, send)

    def _early_error(self, call: Call, hits: dict[str, Hit]) -> Response | None:
        """The reply when nothing is done at all."""
        for hit in hits.values():
            if hit.fault == "html_413":
                return HTMLResponse(_HTML.format("413 Request Entity Too Large"), 413)
            if hit.fault == "spend_limit":
                return _spend_limit(call)
            if hit.fault == "retrieve_404_at_first" and not self._is_young(call, hit):
                continue
            if hit.fault in _NOT_FOUND_FAULTS:
                return _error(call, 404)
            if hit.fault == "retrieve_5xx":
                return _error(call, int(hit.number("status", 500)))
            if hit.fault.startswith("http_"):
                return _error(call, int(hit.fault.removeprefix("http_")), hit.options)
        return None

    def _is_young(self, call: Call, hit: Hit) -> bool:
        batch = self._storage.row("batches", call.path.split("/")[-1])
        return batch is not None and self._clock.now() < batch["created_at"] + hit.number("for_s", 60)

    def _hits(self, call: Call) -> dict[str, Hit]:
        found = self._faults.call(
            call.provider,
            route=call.route,
            sequence=self._accounting.calls[call.name],
            path=call.path.encode(),
            now=self._clock.now(),
        )
        return {hit.fault: hit for hit in found}

    def _call(self, scope: Scope) -> Call | None:
        """Which call this is; None for the emulator's own pages."""
        path = scope["path"]
        if not path.startswith("/v1/"):
            return None
        provider = provider_of(path)
        for route in self._routes:
            if route.matches(scope)[0] is Match.FULL:
                provider, _, name = route.name.partition(".")
                return Call(provider, name, _request_id(), path)
        return Call(provider, "unknown", _request_id(), path)

    def _headers(self, call: Call | None) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-emulator", f"llm_assets/{self._model}".encode())]
        if call is not None:
            name = b"request-id" if call.provider == ANTHROPIC else b"x-request-id"
            headers.append((name, call.request_id.encode()))
        return headers


class _Cut:
    """A `send` that ends the connection in the middle of a line of the body."""

    def __init__(self, send: Send, scope: Scope, share: float) -> None:
        self._send, self._scope, self._share = send, scope, share
        self._left: int | None = None
        self._is_cut = False

    async def __call__(self, message: Message) -> None:
        """Pass on what comes before the cut."""
        if self._is_cut:
            return
        if message["type"] == "http.response.start":
            length = dict(message["headers"]).get(b"content-length")
            if message["status"] == 200 and length is not None:
                self._left = max(1, int(int(length) * self._share))
        elif self._left is not None:
            body = message.get("body", b"")
            if len(body) >= self._left:
                await self._end(body[: self._left])
                return
            self._left -= len(body)
        await self._send(message)

    async def _end(self, body: bytes) -> None:
        self._is_cut = True
        await self._send({"type": "http.response.body", "body": body.rstrip(b"\n"), "more_body": True})
        transport = _transport(self._scope)
        if transport is not None:
            transport.close()  # what was written is sent first


def provider_of(path: str) -> str:
    """Whose API a path belongs to, for the envelope of errors."""
    return ANTHROPIC if path.startswith("/v1/messages") else OPENAI


def _request_id() -> str:
    return f"req_emulator_{secrets.token_hex(10)}"


def _marked(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *headers]}
        await send(message)

    return marked


def _late(send: Send, delay_s: float) -> Send:
    """What is asked is done at once; only the reply is late, and whoever waits for it may be gone by then."""

    async def late(message: Message) -> None:
        if message["type"] == "http.response.start":
            await asyncio.sleep(delay_s)
        await send(message)

    return late


def _refusal(call: Call, scope: Scope) -> Response | None:
    """The reply to a call without a key, or in another version of the API."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    if call.provider == ANTHROPIC:
        refused = anthropic.check_headers(headers)
        return anthropic.error_reply(refused.problem, call.request_id) if refused else None
    unauthorized = openai_files.check_headers(headers)
    return openai_files.error_reply(unauthorized.problem) if unauthorized else None


def _error(call: Call, status: int, options: Mapping[str, Any] | None = None) -> Response:
    table = _ANTHROPIC_ERRORS if call.provider == ANTHROPIC else _OPENAI_ERRORS
    problem = table.get(status, Problem("api_error", f"HTTP {status}", status))
    options = options or {}
    reply = _reply(call, replace(problem, message=options.get("says", problem.message)))
    if "retry_after_s" in options:
        reply.headers["retry-after"] = f"{options['retry_after_s']:g}"
    return reply


def _reply(call: Call, problem: Problem) -> Response:
    if call.provider == ANTHROPIC:
        return anthropic.error_reply(problem, call.request_id)
    return openai_files.error_reply(problem)


def _spend_limit(call: Call) -> Response:
    if call.provider == OPENAI:
        return _reply(call, _QUOTA)
    problem = Problem("rate_limit_error", "You have reached your specified API usage limits", 429)
    details = {"error_code": "enforced_spend_limit_reached"}
    return json_reply(error_envelope(problem, call.request_id, details), 429)


def _option(hits: dict[str, Hit], fault: str, name: str, default: float, *, absent: float) -> float:
    return hits[fault].number(name, default) if fault in hits else absent


async def _swallow(message: Message) -> None:
    return


async def _drained(receive: Receive) -> None:
    """Read the body to its end: a client that is still sending may never see a reply."""
    while True:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body"):
            return


async def _drop(scope: Scope, receive: Receive) -> None:
    """Close the connection without a reply, and wait until the server knows it."""
    transport = _transport(scope)
    if transport is None:
        raise ConnectionError("the emulator cannot drop a connection that it cannot see")
    transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass


def _transport(scope: Scope) -> asyncio.Transport | None:
    found = scope.get("state", {}).get("transport")
    return found if isinstance(found, asyncio.Transport) else None
