"""What answers: the contract of a model, and the names that `--model` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

NAMES = ("scripted", "smollm2")


class ModelUnavailable(Exception):
    """The model that was asked for cannot answer on this machine."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request, without a vendor's wording."""

    system: str  # "" when there is none
    messages: tuple[tuple[str, str], ...]  # (role, text), oldest first; roles "user" | "assistant"
    schema: dict[str, Any] | None  # JSON schema the answer must obey
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said, and what it would cost."""

    text: str
    input_tokens: int
    output_tokens: int
    truncated: bool  # stopped at max_tokens


class Model(Protocol):
    """Answers questions. Deterministic: the same question has the same answer."""

    @property
    def name(self) -> str:
        """Such as "scripted" or "smollm2-135m"; part of every id and header that could mislead."""

    @property
    def instant(self) -> bool:
        """True: answered inline, when a batch is asked about. False: one by one, by the background worker."""

    def answer(self, question: Question) -> Reply:
        """Answer one question; called from one thread at a time."""


def load_model(name: str) -> Model:
    """The model of that name. ModelUnavailable when it is unknown or not installed."""
    if name == "scripted":
        from llm_assets.emulator.scripted import Scripted

        return Scripted()
    if name != "smollm2":
        raise ModelUnavailable(f"no model is called {name!r}; there are {', '.join(NAMES)}")
    try:
        from llm_assets.emulator.smollm2 import SmolLM2
    except ImportError as error:
        raise ModelUnavailable(
            f"smollm2 cannot be loaded ({error}); install it with `make model`, or take --model scripted"
        ) from error
    model: Model = SmolLM2()
    return model
