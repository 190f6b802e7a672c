"""The providers' prompt caches, as usage shows them: which of a request's input tokens were read, which were written.

Rows of a batch are worked on at once, so a prefix that they share is not found by all of them: the first row of a batch
writes it, and of the others one in ten (OpenAI without a `prompt_cache_key`: one in two) comes too early and writes it
again. Which ones follows from their numbers, so that a batch has the same results whenever they are fetched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CHARACTERS_PER_TOKEN = 4
_ANTHROPIC_MIN, _ANTHROPIC_HAIKU_4_5_MIN = 512, 4_096
_OPENAI_MIN, _OPENAI_STEP = 1_024, 128
_OPENAI_WRITES = re.compile(r"gpt-[6-9]")  # earlier models charge nothing for what they keep
_SPREAD = 2_654_435_761


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Of a request's input tokens, those that were read from the cache and those that were written to it; `kept` are
    those of the latter that stay for an hour.
    """

    read: int = 0
    written: int = 0
    kept: int = 0


UNUSED = CacheUse()


def anthropic_use(row: int, content: Mapping[str, Any]) -> CacheUse:
    """What a request used: of blocks up to the last one with `cache_control`."""
    system = content.get("system")
    if not isinstance(system, list):
        return UNUSED
    marks = [number for number, block in enumerate(system) if isinstance(block, dict) and block.get("cache_control")]
    if not marks:
        return UNUSED
    prefix = system[: marks[-1] + 1]
    tokens = sum(len(block.get("text") or "") for block in prefix if isinstance(block, dict)) // _CHARACTERS_PER_TOKEN
    least = _ANTHROPIC_HAIKU_4_5_MIN if "haiku-4-5" in str(content.get("model")) else _ANTHROPIC_MIN
    if tokens < least:
        return UNUSED
    if _is_early(row, 10):
        return CacheUse(written=tokens, kept=tokens if prefix[-1]["cache_control"].get("ttl") == "1h" else 0)
    return CacheUse(read=tokens)


def openai_use(row: int, content: Mapping[str, Any], system: str) -> CacheUse:
    """What a request used: of its instructions, in whole steps."""
    tokens = len(system) // _CHARACTERS_PER_TOKEN // _OPENAI_STEP * _OPENAI_STEP
    if tokens < _OPENAI_MIN:
        return UNUSED
    if not _is_early(row, 10 if content.get("prompt_cache_key") else 2):
        return CacheUse(read=tokens)
    return CacheUse(written=tokens) if _OPENAI_WRITES.match(str(content.get("model"))) else UNUSED


def _is_early(row: int, one_in: int) -> bool:
    return row == 0 or (row * _SPREAD >> 8) % one_in == 0
