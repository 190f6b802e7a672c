"""Mistral's batch API as its documentation tells it, for tests: files, jobs, chats, and what can go wrong with them.

Whatever the documentation leaves open it does in the way that asks most of a client: a job that was just created counts
no requests, its files have another order than its requests, a page has less than was asked for, and what is not
documented is refused.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import orjson

from llm_assets_tests.providers.http_server import Asked, Reply, Server, json_reply, serving

Json = dict[str, Any]
CHAT = "/v1/chat/completions"
_OF_A_CHAT = {"model", "messages", "max_tokens", "response_format", "temperature", "random_seed"}
_OF_A_JOB = {"input_files", "model", "endpoint", "metadata", "timeout_hours"}
_SENTIMENTS = {"good": "positive", "bad": "negative"}


def answer(body: Json) -> tuple[int, Json]:
    """A chat's reply: the sentiment of the first word that has one; words that ask for trouble get it."""
    if strange := sorted(body.keys() - _OF_A_CHAT):
        detail = [{"type": "extra_forbidden", "loc": ["body", name], "input": body[name]} for name in strange]
        return 422, _error("invalid_request_error", {"detail": detail})
    said = str(body["messages"][-1]["content"]).lower().split()
    trouble = {
        "tired": (503, _error("invalid_request_error", "Service tier capacity exceeded for this model.")),
        "broken": (400, _error("invalid_request_error", {"detail": [{"input": " ".join(said)}]})),
    }
    for word in said:
        if word in trouble:
            return trouble[word]
    sentiment = next((_SENTIMENTS[word] for word in said if word in _SENTIMENTS), "neutral")
    cut = "endless" in said
    text = orjson.dumps({"sentiment": sentiment}).decode()
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text[:5] if cut else text, "tool_calls": None},
        "finish_reason": "length" if cut else "stop",
    }
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return 200, {"id": "c", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}


def _error(kind: str, message: object, code: str | None = None) -> Json:
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code}


@dataclass
class Mistral:
    """The state of a workspace. A job is a step further with each look at it, up to `stays` where that is set; of a job
    that is stopped `done_before_stop` requests are answered. `billed` counts answers by what was asked.
    """

    server: Server
    stays: str = ""
    ends_as: str = "SUCCESS"
    done_before_stop: int = 0
    lost_replies: int = 0
    unreachable: int = 0
    gives_metadata: bool = True
    refuses_jobs: Json | None = None
    clock: Callable[[], float] = time.time
    jobs: list[Json] = field(default_factory=list)
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    billed: Counter[str] = field(default_factory=Counter)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def calls(self, method: str, path: str) -> int:
        """How many calls there were with this method to paths that end so."""
        return sum(one.method == method and urlsplit(one.path).path.endswith(path) for one in self.server.asked)

    def answer(self, asked: Asked) -> Reply:
        """One HTTP call."""
        if asked.headers.get("authorization") != "Bearer k":
            return json_reply({"message": "Unauthorized", "request_id": "r"}, 401)
        parts = urlsplit(asked.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        match (asked.method, *parts.path.removeprefix("/v1/").split("/")):
            case ("POST", "files"):
                return self._upload(asked)
            case ("GET", "files"):
                listed = [{"id": name, "filename": filename} for name, (filename, _) in self.files.items()]
                return json_reply(_page(listed, query))
            case ("GET", "files", name, "content") if name in self.files:
                return Reply(body=self.files[name][1], content_type="application/octet-stream")
            case ("DELETE", "files", name) if name in self.files:
                del self.files[name]
                return json_reply({"id": name, "object": "file", "deleted": True})
            case ("POST", "batch", "jobs"):
                return self._create(orjson.loads(asked.body))
            case ("GET", "batch", "jobs"):
                for job in self.jobs:
                    self._go_on(job)
                order = reversed(self.jobs) if query.get("order_by") == "-created" else self.jobs
                return json_reply(_page([_shown(job) for job in order], query))
            case (_, "batch", "jobs", name, *verb) if name in (of_name := {job["id"]: job for job in self.jobs}):
                return self._asked_about(of_name[name], verb)
            case ("POST", "chat", "completions"):
                status, reply = answer(body := orjson.loads(asked.body))
                self._bill(body, status)
                return json_reply(reply, status)
        return json_reply({"detail": "Not Found"}, 404)

    def _asked_about(self, job: Json, verb: list[str]) -> Reply:
        if verb == ["cancel"]:
            job["status"], job["to"] = "CANCELLATION_REQUESTED", "CANCELLED"
        else:
            self._go_on(job)
        return json_reply(_shown(job))

    def _upload(self, asked: Asked) -> Reply:
        form = message_from_bytes(b"content-type: %b\r\n\r\n%b" % (asked.headers["content-type"].encode(), asked.body))
        found = {part.get_param("name", header="content-disposition"): part for part in form.walk()}
        assert found["purpose"].get_payload() == "batch"
        name, content = self._name(), found["file"].get_payload(decode=True)
        assert isinstance(content, bytes)
        self.files[name] = (str(found["file"].get_filename()), content)
        return json_reply({"id": name, "object": "file", "filename": self.files[name][0], "purpose": "batch"})

    def _create(self, body: Json) -> Reply:
        if self.unreachable:
            self.unreachable -= 1
            return Reply(drop=True)
        if self.refuses_jobs:
            return json_reply(self.refuses_jobs, 400)
        if strange := body.keys() - _OF_A_JOB:
            return json_reply(_error("invalid_request_error", {"detail": sorted(strange)}), 422)
        if missing := [name for name in body["input_files"] if name not in self.files]:
            return json_reply(_error("invalid_file", f"File {missing[0]} not found"), 404)
        assert body["endpoint"] == CHAT
        counts = dict.fromkeys(("total_requests", "completed_requests", "succeeded_requests", "failed_requests"), 0)
        job = {
            **body,
            **counts,
            "id": self._name(),
            "object": "batch",
            "metadata": body["metadata"] if self.gives_metadata else None,
            "errors": [],
            "status": "QUEUED",
            "to": self.ends_as,
            "created_at": int(self.clock()),
            "output_file": None,
            "error_file": None,
        }
        self.jobs.append(job)
        if self.lost_replies:
            self.lost_replies -= 1
            return Reply(drop=True)
        return json_reply(_shown(job))

    def _go_on(self, job: Json) -> None:
        if job["status"] == "QUEUED":
            job["status"] = "RUNNING"
            job["total_requests"] = len(self._requests(job))
        elif job["status"] in ("RUNNING", "CANCELLATION_REQUESTED") and self.stays != job["status"]:
            self._end(job)

    def _end(self, job: Json) -> None:
        job["status"] = job["to"]
        requests = self._requests(job)
        if job["status"] != "SUCCESS":
            requests = requests[: self.done_before_stop]
        if job["status"] == "FAILED":
            job["errors"] = [{"message": "The job broke down", "count": 1}]
        rows: dict[str, list[Json]] = {"output_file": [], "error_file": []}
        for request in reversed(requests):
            status, reply = answer(request["body"])
            self._bill(request["body"], status)
            row = {"id": "r", "custom_id": request["custom_id"], "response": {"status_code": status, "body": reply}}
            rows["output_file" if status == 200 else "error_file"].append(row | {"error": None})
        for name, found in rows.items():
            if found:
                job[name] = self._name()
                self.files[job[name]] = (f"{name}.jsonl", b"\n".join(map(orjson.dumps, found)))
        job["succeeded_requests"], job["failed_requests"] = map(len, rows.values())
        job["completed_requests"] = len(requests)

    def _requests(self, job: Json) -> list[Json]:
        return [orjson.loads(line) for line in self.files[job["input_files"][0]][1].splitlines()]

    def _bill(self, body: Json, status: int) -> None:
        if status == 200:
            self.billed[str(body["messages"][-1]["content"])] += 1

    def _name(self) -> str:
        return str(UUID(int=next(self._numbers)))


def _shown(job: Json) -> Json:
    return {name: value for name, value in job.items() if name != "to"}


def _page(listed: list[Json], query: dict[str, str]) -> Json:
    page, size = int(query["page"]), min(3, int(query["page_size"]))  # it need not give as many as it is asked for
    return {"object": "list", "data": listed[page * size :][:size], "total": len(listed)}


@contextmanager
def mistral() -> Iterator[Mistral]:
    """A server whose base URL is `server.url` + /v1, and its state."""
    with serving() as server:
        state = Mistral(server)
        server.answer = state.answer
        yield state
