"""How long a document's text may be, and what becomes of a longer one: it is refused, or cut with a mark. Pure.

Asking about all parts of it is for documents that are made of others (derived.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from semantic_text_splitter import TextSplitter

MARK = "[The rest of the document is left out.]"
# The column of `enriched` that says which texts were cut.
WAS_CUT = "text_was_cut"
_BETWEEN = "\n\n"
_TEXT_CHARS_MIN = 100


class TooLong(StrEnum):
    """What becomes of a text that is too long."""

    REFUSE = "refuse"
    TRUNCATE = "truncate"


@dataclass(frozen=True, slots=True)
class TextLimit:
    """The most characters of a text that are asked about; of a longer one, cut, its `mark` is a part."""

    max_chars: int
    too_long: TooLong = TooLong.REFUSE
    mark: str = MARK

    @property
    def cuts(self) -> bool:
        """Whether texts are cut."""
        return self.too_long is TooLong.TRUNCATE

    def problems(self) -> Iterator[str]:
        """What is wrong with it."""
        least = _TEXT_CHARS_MIN + (len(_BETWEEN + self.mark) if self.cuts else 0)
        if self.max_chars < least:
            yield f"max_chars is {self.max_chars}; it must be at least {least}" + (
                f", so that {_TEXT_CHARS_MIN} remain beside the mark" if self.cuts else ""
            )
        if self.cuts and not self.mark.strip():
            yield "cut_mark is empty; say in words that something is missing, as a model cannot know it"

    def cut(self, text: str) -> str:
        """As much of the beginning as there is room for, and the mark."""
        end = _BETWEEN + self.mark
        room = self.max_chars - len(end)
        return _beginning(text.lstrip()[: self.max_chars], room) + end


def _beginning(text: str, room: int) -> str:
    """To the end of a paragraph, or of a sentence or word where that would leave more than half of the room empty:
    a title before one long paragraph is not what the text says.
    """
    end = 0
    while end < room // 2:
        rest = text[end:].lstrip()
        left = room - (len(text) - len(rest))
        if left < 1 or not (more := TextSplitter(left).chunks(rest)):
            break
        end = len(text) - len(rest) + len(more[0])
    return text[:end]
