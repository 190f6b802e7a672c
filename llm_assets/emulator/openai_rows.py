"""OpenAI's requests, one by one, and what answers them: responses, chat completions, embeddings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from llm_assets.emulator.cache import UNUSED, CacheUse, openai_use
from llm_assets.emulator.models import Question, Reply
from llm_assets.emulator.rows import SEPARATORS, Answer, Kind, Place, Problem
from llm_assets.emulator.schemas import openai_check
from llm_assets.emulator.vectors import Embedder, dimensions_of, embedding_problem, encoded

INVALID = "invalid_request_error"
RESPONSES, CHAT, EMBEDDINGS = "/v1/responses", "/v1/chat/completions", "/v1/embeddings"
ENDPOINTS = (RESPONSES, CHAT, EMBEDDINGS)
_MODEL = re.compile(r"(ft:)?(gpt-|chatgpt-|o\d|text-embedding-)[\w.:-]*")
_REASONING = re.compile(r"(ft:)?(gpt-[5-9]|o\d)")
_NO_BOUND = 1 << 30
_FAULTS = {
    "overloaded": Problem("server_error", "The engine is currently overloaded", 503, "server_is_overloaded"),
    "api_error": Problem("server_error", "The server had an error processing your request", 500, "server_error"),
    "rate_limit": Problem("rate_limit_error", "Rate limit reached for requests", 429, "rate_limit_exceeded"),
    "timeout": Problem("timeout", "Request timed out", 408, "request_timeout"),
    "invalid": Problem(INVALID, "The emulator was told to call this request invalid", 400, "invalid_value", "input"),
    "billing": Problem("insufficient_quota", "You exceeded your current quota", 429, "insufficient_quota"),
    "authentication": Problem(INVALID, "Incorrect API key provided", 401, "invalid_api_key"),
    "permission": Problem("permission_error", "You have no access to this model", 403),
    "not_found": Problem(INVALID, "The model does not exist", 404, "model_not_found", "model"),
}
_UNREACHED = {
    Kind.EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    Kind.CANCELED: ("batch_cancelled", "This request was not executed, as the batch was cancelled."),
}


def error_envelope(problem: Problem) -> dict[str, Any]:
    """`{"error":{…}}`."""
    error = {"message": problem.message, "type": problem.type, "param": problem.param, "code": problem.code}
    return {"error": error}


def is_known_model(name: Any) -> bool:
    """Whether this could be the name of a model of OpenAI's."""
    return isinstance(name, str) and _MODEL.fullmatch(name) is not None


class OpenAIRows:
    """Requests to one endpoint."""

    content_key = "body"

    def __init__(self, endpoint: str, embed: Embedder) -> None:
        self.endpoint, self._embed = endpoint, embed
        self._schema_problem = openai_check()

    def question(self, content: Mapping[str, Any]) -> Question | Problem:
        """What is asked; or the first thing that is wrong, as the API would say it."""
        model = content.get("model")
        if not isinstance(model, str):
            return _missing("model")
        if not is_known_model(model):
            message = f"The model `{model}` does not exist or you do not have access to it."
            return Problem(INVALID, message, 404, "model_not_found", "model")
        if self.endpoint == EMBEDDINGS:
            return embedding_problem(content) or _NO_QUESTION
        return self._responses(content) if self.endpoint == RESPONSES else self._chat(content)

    def embedding(self, content: Mapping[str, Any]) -> Answer | None:
        """A small vector for each input; None at the other endpoints."""
        if self.endpoint != EMBEDDINGS:
            return None
        texts = content["input"] if isinstance(content["input"], list) else [content["input"]]
        if texts and isinstance(texts[0], int):
            texts = [texts]
        tokens = sum(len(str(text)) // 4 + 1 for text in texts)
        dimensions = content.get("dimensions") or dimensions_of(content["model"])
        return Answer(Reply("", tokens, 0, False), vector=[self._embed(str(text), dimensions) for text in texts])

    def cache_use(self, place: Place, content: Mapping[str, Any]) -> CacheUse:
        """What a request has of the prompt cache: of its instructions."""
        system = content.get("instructions")
        if system is None and (turns := content.get("messages")) and turns[0].get("role") in ("system", "developer"):
            system = _text(turns[0].get("content"))
        return openai_use(place.row, content, system) if isinstance(system, str) else UNUSED

    def fault_problem(self, fault: str) -> Problem | None:
        """The error that a fault means."""
        return _FAULTS.get(fault)

    def answered(self, place: Place, content: Mapping[str, Any], answer: Answer) -> bytes:
        """A line of the output file."""
        return _line(place, _response(place, 200, self.body(place, content, answer)), None)

    def failed(self, place: Place, problem: Problem) -> bytes:
        """A line of the error file: the error stands in the body, `error` is null."""
        return _line(place, _response(place, problem.status, error_envelope(problem)), None)

    def unreached(self, place: Place, kind: Kind) -> bytes:
        """A line of the error file without a response."""
        code, message = _UNREACHED[kind]
        return _line(place, None, {"code": code, "message": message})

    def status_zero(self, place: Place) -> bytes:
        """A line that says that there was no reply."""
        return _line(place, {"status_code": 0, "request_id": "", "body": None}, None)

    def body(self, place: Place, content: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        """What the endpoint itself would reply."""
        model = f"{content['model']}+emulator-{place.marker}"
        if answer.vector is not None:
            return _embeddings(model, content, answer)
        return (_response_object if self.endpoint == RESPONSES else _completion)(place, model, content, answer)

    def _responses(self, content: Mapping[str, Any]) -> Question | Problem:
        if content.get("stream"):
            return Problem(INVALID, "Streaming is not supported here.", 400, "unsupported_parameter", "stream")
        if not content.get("input"):
            return _missing("input")
        wanted = (content.get("text") or {}).get("format") or {}
        problem = _bound_problem(content, "max_output_tokens") or self._format_problem(wanted, "text.format")
        if problem is not None:
            return problem
        return _question(content["input"], content.get("instructions"), wanted, content.get("max_output_tokens"))

    def _chat(self, content: Mapping[str, Any]) -> Question | Problem:
        if content.get("stream"):
            return Problem(INVALID, "Streaming is not supported here.", 400, "unsupported_parameter", "stream")
        if not content.get("messages"):
            return _missing("messages")
        if "max_tokens" in content and _REASONING.match(content["model"]):
            message = (
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'"
                " instead."
            )
            return Problem(INVALID, message, 400, "unsupported_parameter", "max_tokens")
        wanted = content.get("response_format") or {}
        schema = {**(wanted.get("json_schema") or {}), "type": wanted.get("type")}
        problem = (
            _bound_problem(content, "max_completion_tokens")
            or _bound_problem(content, "max_tokens")
            or self._format_problem(schema, "response_format")
        )
        if problem is not None:
            return problem
        return _question(
            content["messages"], None, schema, content.get("max_completion_tokens", content.get("max_tokens"))
        )

    def _format_problem(self, wanted: Mapping[str, Any], param: str) -> Problem | None:
        if wanted.get("type") != "json_schema":
            return None
        name, schema = wanted.get("name"), wanted.get("schema")
        if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name):
            return _missing(f"{param}.name")
        if not isinstance(schema, dict):
            return _missing(f"{param}.schema")
        problem = self._schema_problem(schema) if wanted.get("strict") else None
        if problem is None:
            return None
        message = f"Invalid schema for response_format '{name}': {problem}"
        return Problem(INVALID, message, 400, "invalid_json_schema", f"{param}.schema" if "text" in param else param)


_NO_QUESTION = Question("", (), None, _NO_BOUND)


def _missing(param: str) -> Problem:
    return Problem(INVALID, f"Missing required parameter: '{param}'.", 400, "missing_required_parameter", param)


def _bound_problem(content: Mapping[str, Any], name: str) -> Problem | None:
    value = content.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        message = f"Invalid type for '{name}': expected an integer."
        return Problem(INVALID, message, 400, "invalid_type", name)
    if value < 1:
        message = f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value} instead."
        return Problem(INVALID, message, 400, "integer_below_min_value", name)
    return None


def _question(turns: Any, instructions: Any, wanted: Mapping[str, Any], bound: int | None) -> Question | Problem:
    system = [instructions] if isinstance(instructions, str) else []
    messages: list[tuple[str, str]] = []
    for turn in [{"role": "user", "content": turns}] if isinstance(turns, str) else turns:
        if not isinstance(turn, dict) or not isinstance(turn.get("content", ""), str | list | None):
            return Problem(INVALID, "Invalid type for 'input': expected messages.", 400, "invalid_type", "input")
        role, text = turn.get("role"), _text(turn.get("content"))
        if role in ("system", "developer"):
            system.append(text)
        elif role in ("user", "assistant"):
            messages.append((role, text))
    schema = wanted.get("schema") if wanted.get("type") == "json_schema" else None
    return Question("\n".join(system), tuple(messages), schema, bound or _NO_BOUND)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text") or "" for part in content or () if isinstance(part, dict))


def _line(place: Place, response: dict[str, Any] | None, error: dict[str, Any] | None) -> bytes:
    line = {
        "id": f"batch_req_emulator_{place.key}{place.row:06x}",
        "custom_id": place.custom_id,
        "response": response,
        "error": error,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _response(place: Place, status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": f"req_emulator_{place.key}{place.row:06x}", "body": body}


def _response_object(place: Place, model: str, content: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    reply = answer.reply
    why = "content_filter" if answer.how == "content_filter" else "max_output_tokens" if reply.truncated else None
    item_status = "incomplete" if why else "completed"
    return {
        "id": f"resp_emulator_{place.key}{place.row:06x}",
        "object": "response",
        "created_at": int(place.at),
        "status": item_status,
        "background": False,
        "completed_at": int(place.at),
        "error": None,
        "incomplete_details": {"reason": why} if why else None,
        "instructions": content.get("instructions"),
        "max_output_tokens": content.get("max_output_tokens"),
        "metadata": content.get("metadata") or {},
        "model": model,
        "output": _output(place, answer, item_status),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": content.get("service_tier") or "default",
        "store": True,
        "temperature": content.get("temperature", 1.0),
        "text": content.get("text") or {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": content.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": _usage(answer, "input", "output"),
        "user": None,
    }


def _output(place: Place, answer: Answer, status: str) -> list[dict[str, Any]]:
    if answer.how == "empty_content":
        return []
    if answer.how == "refusal":
        part: dict[str, Any] = {"type": "refusal", "refusal": "The emulator was told to refuse this request."}
    else:
        part = {"type": "output_text", "text": answer.reply.text, "annotations": [], "logprobs": []}
    key = f"{place.key}{place.row:06x}"
    message = {"id": f"msg_emulator_{key}", "type": "message", "status": status, "role": "assistant", "content": [part]}
    thoughts = {"thinking_first": "The emulator thought first.", "u2028": f"Lines{SEPARATORS}that are none."}
    if answer.how not in thoughts:
        return [message]
    summary = [{"type": "summary_text", "text": thoughts[answer.how]}]
    return [{"id": f"rs_emulator_{key}", "type": "reasoning", "summary": summary}, message]


def _completion(place: Place, model: str, content: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    reply = answer.reply
    refused, empty = answer.how == "refusal", answer.how == "empty_content"
    finish = "content_filter" if answer.how == "content_filter" else "length" if reply.truncated else "stop"
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if refused or empty else reply.text,
        "refusal": "The emulator was told to refuse this request." if refused else None,
        "annotations": [],
    }
    mark = f"fp_emulator{SEPARATORS}" if answer.how == "u2028" else "fp_emulator"
    return {
        "id": f"chatcmpl-emulator-{place.key}{place.row:06x}",
        "object": "chat.completion",
        "created": int(place.at),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": _usage(answer, "prompt", "completion"),
        "service_tier": content.get("service_tier") or "default",
        "system_fingerprint": mark,
    }


def _usage(answer: Answer, read: str, wrote: str) -> dict[str, Any]:
    reply, cache = answer.reply, answer.cache
    return {
        f"{read}_tokens": reply.input_tokens,
        f"{read}_tokens_details": {"cached_tokens": cache.read, "cache_write_tokens": cache.written},
        f"{wrote}_tokens": reply.output_tokens,
        f"{wrote}_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": reply.input_tokens + reply.output_tokens,
    }


def _embeddings(model: str, content: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    vectors = answer.vector or ()
    data = [
        {"object": "embedding", "index": index, "embedding": encoded(vector, content.get("encoding_format"))}
        for index, vector in enumerate(vectors)
    ]
    tokens = answer.reply.input_tokens
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
