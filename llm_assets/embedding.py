"""The shape of an answer that is a vector: the same face as an output schema, without any JSON.

On the way from the provider to the table a vector is the base64 text of its numbers, 32-bit floats in little-endian
order, as OpenAI sends it.
"""

from __future__ import annotations

import hashlib
import math
from base64 import b64decode
from binascii import Error
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

EMBEDDING = "embedding"
DIMENSIONS_MAX = 16_384
_BYTES = 4


@dataclass(frozen=True)
class Embedding:
    """A vector of so many dimensions, in the column `embedding`: a fixed-size array of Float32."""

    dimensions: int

    name = EMBEDDING
    foreign = False  # no class of the user's own

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """What tables say of it; no provider is asked to enforce it."""
        described = {"type": "array", "description": f"The text as a vector of {self.dimensions:,} dimensions."}
        return {"type": "object", "properties": {EMBEDDING: described}}

    @cached_property
    def frame_schema(self) -> dict[str, pl.DataType]:
        """Its column."""
        return {EMBEDDING: pl.Array(pl.Float32, self.dimensions)}

    @cached_property
    def digest(self) -> str:
        """Names what is asked for."""
        return hashlib.blake2b(f"{EMBEDDING} {self.dimensions}".encode(), digest_size=16).hexdigest()

    @property
    def answer_bytes(self) -> int:
        """About how long an answer is."""
        return self.dimensions * _BYTES * 4 // 3

    def validate(self, text: str) -> str | None:
        """None when `text` is such a vector, else why not. Never raises."""
        try:
            raw = b64decode(text, validate=True)
        except (Error, ValueError):
            return "the vector is not encoded as base64"
        if len(raw) != self.dimensions * _BYTES:
            return f"the vector has {len(raw) / _BYTES:g} dimensions, not {self.dimensions}"
        length = norm(raw)
        if not math.isfinite(length):
            return "the vector has numbers that are not finite"
        return None if length > 0 else "all numbers of the vector are zero"

    def typed(self, answers: pl.Series) -> pl.DataFrame:
        """Validated answers (String, null where there is none) as the column."""
        vectors = answers.str.decode("base64").bin.reinterpret(
            dtype=pl.Array(pl.Float32, self.dimensions), endianness="little"
        )
        return pl.DataFrame({EMBEDDING: vectors})

    def shown(self, text: str) -> dict[str, Any]:
        """What a person sees of a validated answer."""
        return {EMBEDDING: f"{self.dimensions:,} dimensions, length {norm(b64decode(text)):.3f}"}


def norm(raw: bytes) -> float:
    """The Euclidean length of a vector as it is encoded; not finite when one of its numbers is not."""
    return math.hypot(*memoryview(raw).cast("f"))
