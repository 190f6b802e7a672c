"""What is said to a server of a vendor's batch API, and what is learned of its answers.

Over plain HTTP, so that headers, states and shapes are seen as they are. The rows are made by the dialects that
production uses: two that can be answered, and one that is refused when it is processed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

import httpx2

from live.facts import Facts, reply_facts, shape_facts
from llm_assets.output_schema import OutputSchema
from llm_assets.providers import Credentials, Dialect, get_provider
from llm_assets.records import Message, Task

MODELS = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}
ADDRESSES = {"anthropic": "https://api.anthropic.com", "openai": "https://api.openai.com/v1"}
_MAX_TOKENS = 64
_TEXTS = ("The kettle is good.", "The kettle leaks.", "The kettle is a kettle.")
_NOBODY = {"anthropic": "msgbatch_nobody", "openai": "batch_nobody"}
_TIMEOUT_SECONDS = 120
_ENDED = frozenset({"ended", "completed", "failed", "expired", "cancelled"})


class NoConversation(Exception):
    """The server took no batch, or did not end it in time; the message holds no key."""


@dataclass(slots=True)
class Conversation:
    """One with one server. `pause` waits between two looks, and raises NoConversation when that is enough."""

    vendor: str
    credentials: Credentials
    pause: Callable[[str], None]
    facts: Facts = field(default_factory=dict)

    def hold(self) -> Facts:
        """All of it, with what is left at the server deleted in the end. Raises NoConversation."""
        batch_id = ""
        uploaded: list[str] = []
        try:
            batch_id = self._create(uploaded)
            ended = self._wait(batch_id)
            self._call("list", "GET", self._at("batches"), params={"limit": 1})
            self._results(ended, uploaded)
            self._call("unknown batch", "GET", self._at(f"batches/{_NOBODY[self.vendor]}"))
            self._call("wrong key", "GET", self._at("batches"), params={"limit": 1}, key="no-key-of-anybody")
        finally:
            self._delete(batch_id, uploaded)
        return self.facts

    def _create(self, uploaded: list[str]) -> str:
        shard = shard_of(self.vendor)
        if self.vendor == "anthropic":
            made = self._call("create", "POST", self._at("batches"), content=shard, json_body=True)
        else:
            parts = {"file": ("live.jsonl", shard), "purpose": (None, "batch")}
            file = self._call("upload", "POST", "/files", files=parts)
            uploaded += [file["id"]] if isinstance(file.get("id"), str) else []
            body = {"endpoint": "/v1/responses", "completion_window": "24h", "metadata": {"live": "check"}}
            content = json.dumps(body | {"input_file_id": file.get("id")}).encode()
            made = self._call("create", "POST", self._at("batches"), content=content, json_body=True)
        if not isinstance(made.get("id"), str):
            raise NoConversation(f"{self.vendor} took no batch: HTTP {self.facts['create: status']}")
        return str(made["id"])

    def _wait(self, batch_id: str) -> Mapping[str, Any]:
        states: list[str] = []
        while True:
            batch = self._call("retrieve", "GET", self._at(f"batches/{batch_id}"))
            state = str(batch.get("processing_status") or batch.get("status"))
            states += [state] if state not in states else []
            if state in _ENDED:
                break
            self.pause(f"{batch_id} is {state}")
        counts = batch.get("request_counts")
        self.facts["states: last"] = states[-1]
        self.facts["counts: at the end"] = json.dumps(counts, sort_keys=True)
        return batch

    def _results(self, batch: Mapping[str, Any], uploaded: list[str]) -> None:
        if self.vendor == "anthropic":
            url = urljoin(self._address, str(batch.get("results_url") or ""))
            ours = _host(url) == _host(self._address)  # no other is shown the key
            self.facts["results: at the same host"] = str(ours)
            found = self._lines("results", url) if ours else []
        else:
            found = []
            for name in ("output_file_id", "error_file_id"):
                if file_id := batch.get(name):
                    uploaded.append(str(file_id))
                    found += self._lines(name, f"/files/{file_id}/content")
        self.facts["results: lines"] = str(len(found))
        known = {str(number) for number in range(len(_TEXTS))}
        self.facts["results: each row once"] = str(sorted(line.get("custom_id", "") for line in found) == sorted(known))
        for line in found:
            answered = "0" in str(line.get("custom_id")) or "1" in str(line.get("custom_id"))
            self.facts |= shape_facts("an answered row" if answered else "a refused row", line)

    def _lines(self, call: str, path: str) -> list[dict[str, Any]]:
        with self._client(None) as client:
            reply = client.get(path)
        self.facts |= reply_facts(call, reply.status_code, reply.headers, None)
        try:
            return [json.loads(line) for line in reply.content.split(b"\n") if line and reply.is_success]
        except ValueError:
            return []

    def _delete(self, batch_id: str, uploaded: list[str]) -> None:
        if self.vendor == "anthropic" and batch_id:
            self._call("delete", "DELETE", self._at(f"batches/{batch_id}"))
        for file_id in uploaded:
            self._call("delete a file", "DELETE", f"/files/{file_id}")

    def _call(
        self, call: str, method: str, path: str, *, key: str | None = None, json_body: bool = False, **sent: Any
    ) -> dict[str, Any]:
        with self._client(key) as client:
            headers = {"content-type": "application/json"} if json_body else {}
            reply = client.request(method, path, headers=headers, **sent)
        try:
            body = reply.json()
        except ValueError:
            body = None
        shown = None if call == "wrong key" and reply.is_success else body  # a server that lets everybody in
        self.facts |= reply_facts(call, reply.status_code, reply.headers, shown)
        return body if isinstance(body, dict) else {}

    @contextmanager
    def _client(self, key: str | None) -> Iterator[httpx2.Client]:
        headers = {"Authorization": f"Bearer {key or self.credentials.api_key.strip()}"}
        headers |= {"anthropic-version": "2026-10-21"} if self.vendor == "anthropic" else {}
        try:
            with httpx2.Client(base_url=self._address, headers=headers, timeout=_TIMEOUT_SECONDS) as client:
                yield client
        except httpx2.HTTPError as error:
            problem = f"{self.vendor} at {_host(self._address)} cannot be reached ({type(error).__name__})"
            raise NoConversation(problem) from None

    @property
    def _address(self) -> str:
        return (self.credentials.base_url or ADDRESSES[self.vendor]).rstrip("/")

    def _at(self, path: str) -> str:
        return f"/v1/messages/{path}" if self.vendor == "anthropic" else f"/{path}"


def shard_of(vendor: str) -> bytes:
    """Three rows, as production writes them; the last asks for what no vendor gives."""
    dialect = get_provider(vendor, None).dialect
    form = dialect.shard_format
    lines = [dialect.line(str(number), _body(dialect, text, number)) for number, text in enumerate(_TEXTS)]
    return form.header + form.separator.join(lines) + form.footer


def _body(dialect: Dialect, text: str, number: int) -> bytes:
    output = OutputSchema.from_fields("mood", {"mood": {"type": "string", "enum": ["good", "bad", "none"]}}, "live")
    last = number == len(_TEXTS) - 1
    task = Task(MODELS[dialect.name], -1 if last else _MAX_TOKENS, output.json_schema, output.name)
    return json.dumps(dialect.body(task, [Message("user", f"Which mood? {text}")])).encode()


def _host(url: str) -> str:
    return httpx2.URL(url).host if url else ""
