"""What answers at /v1/embeddings: a small embedding model where one is installed (minilm.py), else vectors made of the
words of texts, so that those that share words are near each other.
"""

from __future__ import annotations

import re
from array import array
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from random import Random
from typing import Any

from llm_assets.emulator.minilm import MiniLM, is_installed
from llm_assets.emulator.rows import Problem

_DIMENSIONS = {"text-embedding-3-large": 3072}
_DIMENSIONS_USUAL = 1536
_INPUTS_MAX = 2048
_INPUT_TOKENS_MAX = 8192
_CHARACTERS_PER_TOKEN = 4
_WORD = re.compile(r"\w+")
_PLACES = 6  # of a vector, that a word changes
_INVALID = "invalid_request_error"
# A text and a number of dimensions → a vector of length one, always the same for the same text.
Embedder = Callable[[str, int], list[float]]


def embedder() -> Embedder:
    """What makes vectors on this machine."""
    return MiniLM() if is_installed() else vector_of


def dimensions_of(model: str) -> int:
    """How many dimensions a model's vectors have when nothing else is asked for."""
    return _DIMENSIONS.get(model, _DIMENSIONS_USUAL)


def embedding_problem(content: Mapping[str, Any]) -> Problem | None:
    """What is wrong with a request, in the words of the vendor."""
    inputs = content.get("input")
    if inputs is None:
        return Problem(_INVALID, "Missing required parameter: 'input'.", 400, "missing_required_parameter", "input")
    texts = inputs if isinstance(inputs, list) else [inputs]
    if not texts or len(texts) > _INPUTS_MAX or "" in texts:
        return Problem(_INVALID, "'$.input' is invalid. Please check the API reference.", 400, None, "input")
    longest = max(len(text) for text in texts if isinstance(text, str | list)) if not isinstance(texts[0], int) else 0
    if longest > _INPUT_TOKENS_MAX * _CHARACTERS_PER_TOKEN:
        message = f"Invalid 'input': maximum context length is {_INPUT_TOKENS_MAX} tokens."
        return Problem(_INVALID, message, 400, "context_length_exceeded", "input")
    dimensions = content.get("dimensions")
    most = dimensions_of(str(content.get("model")))
    if dimensions is not None and (not isinstance(dimensions, int) or not 1 <= dimensions <= most):
        message = f"Invalid value for 'dimensions' = {dimensions}. Must be between 1 and {most}."
        return Problem(_INVALID, message, 400, None, "dimensions")
    if content.get("encoding_format") not in (None, "float", "base64"):
        return Problem(_INVALID, "Invalid value for 'encoding_format'.", 400, "invalid_value", "encoding_format")
    return None


def vector_of(text: str, dimensions: int) -> list[float]:
    """Of length one, as theirs are, and always the same for a text."""
    values = [0.0] * dimensions
    for word in _WORD.findall(text.lower()) or [text]:
        for place, value in _marks(word):
            values[place % dimensions] += value
    length = sum(value * value for value in values) ** 0.5
    if length < 1e-9:  # the words cancel each other
        values[0], length = 1.0, 1.0
    return [value / length for value in values]


@lru_cache(maxsize=50_000)
def _marks(word: str) -> tuple[tuple[int, float], ...]:
    """What a word adds to a vector: to which places, and how much."""
    draw = Random(blake2b(word.encode(errors="replace"), digest_size=8).digest())  # noqa: S311
    return tuple((draw.randrange(1 << 30), draw.uniform(-1, 1)) for _ in range(_PLACES))


def encoded(vector: Sequence[float], form: Any) -> list[float] | str:
    """As numbers, or as the base64 text of 32-bit floats."""
    if form == "base64":
        return b64encode(array("f", vector).tobytes()).decode()
    return [round(value, 8) for value in vector]
