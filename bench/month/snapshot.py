"""The documents of each day: some are copies of others, as feeds have them, and some change from day to day. Pure."""

from __future__ import annotations

from random import Random

from bench.task import report, sentences

CHANGED_SHARE = 0.02
COPIES_SHARE = 0.1


class Snapshot:
    """So many documents, of which a tenth are copies: a copy changes with what it is a copy of.

    The same number and seed make the same month.
    """

    def __init__(self, documents: int, seed: int) -> None:
        self._random = Random(f"{seed}/month")  # noqa: S311 (texts, not secrets)
        self._pool = sentences(self._random)
        self.documents = documents
        self.contents = documents - int(documents * COPIES_SHARE)
        self.day = 0
        self._texts = [self._text(number) for number in range(self.contents)]

    def rows(self) -> list[tuple[str, str]]:
        """Id and text of every document."""
        return [(f"d{number:06}", self._texts[number % self.contents]) for number in range(self.documents)]

    def next_day(self) -> None:
        """Two in a hundred of the contents, and with them their copies, say something else."""
        self.day += 1
        for number in self._random.sample(range(self.contents), round(self.contents * CHANGED_SHARE)):
            self._texts[number] = self._text(number)

    def _text(self, number: int) -> str:
        return report(f"{number} of day {self.day}", self._random, self._pool)
