"""Results → outcomes: exactly one row for each request of a shard, whatever came back.

Pure: result lines and the fingerprints that were sent in, a frame of RESULTS_SCHEMA out. An answer is a result
that validated; everything else is a row with a reason. Rows are taken in by custom_id, in any order; the first of
several for one request wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import polars as pl
from msgspec.structs import replace

from llm_assets.enrichment import Output
from llm_assets.providers import Dialect
from llm_assets.records import RESULTS_SCHEMA, Fingerprint, Reason, Result
from llm_assets.shards import fingerprint_of

# Far above any line that can be used: the longest answer that is read (output_schema.ANSWER_CHARS_MAX), each of its
# characters escaped in six bytes, and what stands around it. A longer line is never held as a whole.
LINE_BYTES_MAX = 16 << 20
_READ_BYTES = 1 << 20
# Results are few objects at a time, and columns as soon as may be.
_SLICE_ROWS = 2_000
_PLACE = "place"
# Both vendors write the custom_id first or second. In a text its quotes would be escaped, so a match is no quotation.
_NAMED_WITHIN = 1024
_CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*"([a-zA-Z0-9_-]{1,64})"')
_NOT_READ = "the result is no JSON that can be read: broken, or nested too deeply"
_NOT_DONE = "the batch ended before the turn of this request came"
_NO_RESULT = Result("", reason=Reason.MISSING_RESULT, message="the provider returned no result for this request")


@dataclass(slots=True)
class Intake:
    """What the lines of a shard's results were. A request is named by its place among the `sent`.

    `slices` have the first result of each request, judged; `missing` are the requests without one. `unknown` counts
    lines whose custom_id the shard did not send, `duplicates` further lines for a request that had one, `conflicts`
    those of them that say something else, `unreadable` lines that are no results. `broken` has the requests that
    unreadable lines seem to be for: a line that was cut short looks like that, too, so these count as outcomes only
    when nothing better can be had.
    """

    sent: int = 0
    slices: list[pl.DataFrame] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    broken: dict[int, Result] = field(default_factory=dict)
    lines: int = 0
    unknown: int = 0
    duplicates: int = 0
    conflicts: int = 0
    unreadable: int = 0

    @property
    def found(self) -> int:
        """How many requests have a result that could be read."""
        return self.sent - len(self.missing)


def take_in(
    lines: Iterable[bytes], key: str, sent: Sequence[Fingerprint], dialect: Dialect, output: Output | None
) -> Intake:
    """Read result lines; judge and keep those that answer what the shard `key` sent.

    `output` is the schema that was asked for. Who has only another one gives none: the answers are not judged yet.
    """
    places = {fingerprint: place for place, fingerprint in enumerate(sent)}
    said: list[int | None] = [None] * len(sent)
    intake = Intake(len(sent))
    taken: dict[int, Result] = {}
    for line in lines:
        intake.lines += 1
        try:
            result = _oversize(line) if len(line) > LINE_BYTES_MAX else dialect.result(line)
        except ValueError:
            intake.unreadable += 1
            broken = _unread(line, _NOT_READ)
            if (place := _place(broken, key, places)) is not None:
                intake.broken.setdefault(place, broken)
            continue
        if (place := _place(result, key, places)) is None:
            intake.unknown += 1
        elif said[place] is not None:
            intake.duplicates += 1
            intake.conflicts += said[place] != _said(result)
        else:
            said[place] = _said(result)
            taken[place] = judge(result, output)
            if len(taken) == _SLICE_ROWS:
                intake.slices.append(_rows(taken, judged=output is not None))
                taken.clear()
    intake.slices.append(_rows(taken, judged=output is not None))
    intake.missing = [place for place, what in enumerate(said) if what is None]
    return intake


def _place(result: Result, key: str, places: Mapping[Fingerprint, int]) -> int | None:
    fingerprint = fingerprint_of(result.custom_id, key)
    return None if fingerprint is None else places.get(fingerprint)


def _said(result: Result) -> int:
    """What tells results apart, for a set of lines in which no text is to be kept twice."""
    return hash((result.text, result.reason))


def _oversize(line: bytes) -> Result:
    """The outcome of a line that is not read for its length. Raises ValueError when it names no request."""
    result = _unread(line, f"the result is longer than {LINE_BYTES_MAX >> 20} MB; it was not read")
    if not result.custom_id:
        raise ValueError("not a result line: no custom_id at its beginning")
    return result


def _unread(line: bytes, problem: str) -> Result:
    """An outcome for the request that the beginning of a line names, if it names one."""
    named = _CUSTOM_ID.search(line[:_NAMED_WITHIN])
    custom_id = named[1].decode() if named else ""
    return Result(custom_id, reason=Reason.UNREADABLE_RESULT, message=problem)


def outcomes(sent: Sequence[Fingerprint], intake: Intake, wave: int, rest: Reason | None = None) -> pl.DataFrame:
    """One row of RESULTS_SCHEMA for each request that was sent, in the order of sending.

    `rest` is why requests without a result were not done, where that is known.
    """
    absent = _NO_RESULT if rest is None else Result("", reason=rest, message=_NOT_DONE)
    others = {place: intake.broken.get(place, absent) for place in intake.missing}
    return _table(sent, [*intake.slices, _rows(others)], wave)


def same_outcome(sent: Sequence[Fingerprint], reason: Reason, code: str, message: str, wave: int) -> pl.DataFrame:
    """One row of RESULTS_SCHEMA for each request of a shard that failed as a whole."""
    result = Result(custom_id="", reason=reason, provider_type=code, message=message)
    return _table(sent, [_rows(dict.fromkeys(range(len(sent)), result))], wave)


def judge(result: Result, output: Output | None) -> Result:
    """A result with its reason: what does not obey the output schema gets one."""
    if result.reason is not None or output is None:
        return result
    problem = output.validate(result.text or "")
    return replace(result, reason=Reason.INVALID_ANSWER, message=problem) if problem else result


def invalid_answers(answers: pl.DataFrame, output: Output) -> pl.DataFrame:
    """Of answers that were not judged yet, those that do not obey the output schema, and why not.

    `answers` has fingerprint, wave, answer; what is returned has fingerprint, wave, problem.
    """
    problems = pl.Series("problem", [output.validate(text or "") for text in answers["answer"]], dtype=pl.String)
    return answers.select("fingerprint", "wave", problems).drop_nulls("problem")


def read_lines(paths: Iterable[Path]) -> Iterator[bytes]:
    r"""The lines of result files, split on `\n` bytes alone, without empty ones; of longer lines than LINE_BYTES_MAX
    the beginning, one byte more than that.

    Text may hold U+2028 and its like, at which `splitlines` would cut one JSON line in two.
    """
    for path in paths:
        with path.open("rb", buffering=_READ_BYTES) as file:
            yield from _non_empty(file)


def _non_empty(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES_MAX + 1):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(_READ_BYTES)
        if stripped := line.strip(b"\r\n"):
            yield stripped


def _rows(taken: Mapping[int, Result], *, judged: bool = True) -> pl.DataFrame:
    """Results, by the place of their request, as the columns of RESULTS_SCHEMA that they have something to say of."""
    results = taken.values()
    usages = [result.usage for result in results]
    columns = {
        _PLACE: list(taken),
        "reason": [result.reason for result in results],
        "provider_type": [result.provider_type for result in results],
        "message": [result.message for result in results],
        "answer": [result.text for result in results],
        "model": [result.model for result in results],
        "input_tokens": [usage.input_tokens for usage in usages],
        "output_tokens": [usage.output_tokens for usage in usages],
        "cache_read_tokens": [usage.cache_read_tokens for usage in usages],
        "cache_write_tokens": [usage.cache_write_tokens for usage in usages],
        "cache_write_1h_tokens": [usage.cache_write_1h_tokens for usage in usages],
    }
    schema = {name: RESULTS_SCHEMA.get(name, pl.UInt32()) for name in columns}
    return pl.DataFrame(columns, schema=schema).with_columns(pl.lit(judged).alias("judged"))


def _table(sent: Sequence[Fingerprint], slices: Sequence[pl.DataFrame], wave: int) -> pl.DataFrame:
    """RESULTS_SCHEMA, of slices that have each place among the sent once."""
    rows = pl.concat(slices).sort(_PLACE).drop(_PLACE)
    ours = {"wave": wave, "cost_usd": 0.0, "answered_at": None}  # costs are worked out by columns (spending.py)
    return rows.with_columns(
        pl.Series("fingerprint", sent, dtype=RESULTS_SCHEMA["fingerprint"]),
        *[pl.lit(value, dtype=RESULTS_SCHEMA[name]).alias(name) for name, value in ours.items()],
    ).select(*RESULTS_SCHEMA)
