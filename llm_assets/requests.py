"""Documents × enrichment → requests: rendered, encoded, and identified by a fingerprint.

Pure: a slice of the documents in, a slice of the plan and the encoded bodies out. A document that cannot become
a request is a row of the plan with a reason, and nothing is sent for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl

from llm_assets.enrichment import Enrichment
from llm_assets.prompt import PromptFailed
from llm_assets.providers import Dialect
from llm_assets.records import DOCUMENT_ID, PLAN_SCHEMA, TEXT, Amendment, Fingerprint, Message, Reason
from llm_assets.text_limit import WAS_CUT

# What a custom_id, its line and the file around it may add to a body.
_OVERHEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class RenderedSlice:
    """A slice of documents as requests.

    `plan` has PLAN_SCHEMA, the kept columns and, where texts may be cut, which are, a row a document; `bodies` maps
    each fingerprint of the slice to its encoded request body, once however many documents share it.
    """

    plan: pl.DataFrame
    bodies: dict[Fingerprint, bytes]


class Renderer:
    """Renders the documents of one enrichment.

    `amendments` say which requests are asked differently this time: with more room for an answer that was cut, with
    the answer that was refused and why. The fingerprint stays that of the request as declared, so that its answer is
    found whatever was needed to get it.
    """

    def __init__(
        self,
        enrichment: Enrichment,
        dialect: Dialect,
        body_bytes_max: int,
        amendments: Mapping[Fingerprint, Amendment] | None = None,
    ) -> None:
        self._enrichment = enrichment
        self._dialect = dialect
        self._body_bytes_max = body_bytes_max - _OVERHEAD_BYTES
        self._amendments = amendments or {}
        self._columns = sorted(enrichment.prompt.variables | {TEXT})
        self._frame = body_frame(enrichment, dialect)
        # What all bodies begin with is hashed once.
        self._identity = hashlib.blake2b(f"{dialect.name}\n{dialect.endpoint}\n".encode(), digest_size=16)
        self._identity.update(self._frame[0])

    def render(self, documents: pl.DataFrame) -> RenderedSlice:
        """Requests for a slice of documents (columns document_id, text, and those that the prompt names)."""
        bodies: dict[Fingerprint, bytes] = {}
        fingerprints: list[str | None] = []
        reasons: list[str | None] = []
        messages: list[str | None] = []
        for row in documents.select(self._columns).iter_rows(named=True):
            fingerprint, reason, message = self._request(row, bodies)
            fingerprints.append(fingerprint)
            reasons.append(reason)
            messages.append(message)
        columns = (documents[DOCUMENT_ID], fingerprints, reasons, messages)
        plan = pl.DataFrame(dict(zip(PLAN_SCHEMA, columns, strict=True)), schema=PLAN_SCHEMA)
        plan = plan.with_columns(*documents.select(self._enrichment.keep), *self._cut(documents))
        return RenderedSlice(plan, bodies)

    def _cut(self, documents: pl.DataFrame) -> list[pl.Series]:
        """The plan's column that says which texts are cut, where that is declared."""
        limit = self._enrichment.text_limit
        if limit is None or not limit.cuts:
            return []
        return [(documents[TEXT].str.len_chars() > limit.max_chars).fill_null(value=False).alias(WAS_CUT)]

    def _request(
        self, row: Mapping[str, Any], bodies: dict[Fingerprint, bytes]
    ) -> tuple[str | None, str | None, str | None]:
        if not row[TEXT] or row[TEXT].isspace():
            return None, Reason.EMPTY_DOCUMENT, "the document has no text; nothing was sent for it"
        limit = self._enrichment.text_limit
        if limit is not None and len(row[TEXT]) > limit.max_chars:
            if not limit.cuts:
                return None, Reason.DOCUMENT_TOO_LARGE, _too_long(len(row[TEXT]), limit.max_chars)
            row = {**row, TEXT: limit.cut(row[TEXT])}
        try:
            texts = self._enrichment.prompt.texts(row)
        except PromptFailed as error:
            return None, Reason.PROMPT_FAILED, str(error)
        beginning, rest = self._frame
        rest %= tuple([orjson.dumps(text) for text in texts])
        size = len(beginning) + len(rest)
        if size > self._body_bytes_max:
            return None, Reason.DOCUMENT_TOO_LARGE, _too_large(size, self._body_bytes_max)
        digest = self._identity.copy()
        digest.update(rest)
        fingerprint = Fingerprint(digest.hexdigest())
        if fingerprint not in bodies:
            # To what makes vectors nothing else can be said.
            amendment = None if self._dialect.embeds else self._amendments.get(fingerprint)
            bodies[fingerprint] = beginning + rest if amendment is None else self._amended(amendment, texts)
        return fingerprint, None, None

    def _amended(self, amendment: Amendment, texts: Sequence[str]) -> bytes:
        """The body of a request that is asked differently; without what was refused where that is too much for a
        shard.
        """
        task, messages = self._enrichment.task, self._enrichment.prompt.messages(texts)
        if amendment.max_tokens != task.max_tokens:
            task = self._enrichment.task_with(amendment.max_tokens)
        body = orjson.dumps(self._dialect.body(task, [*messages, *_correction(amendment)]))
        if len(body) > self._body_bytes_max:
            body = orjson.dumps(self._dialect.body(task, messages))
        return body


def body_frame(enrichment: Enrichment, dialect: Dialect) -> tuple[bytes, bytes]:
    """What all request bodies begin with, and a format for the rest: it takes the texts of the turns that differ from
    document to document, each as a JSON string.

    So all else is encoded once, and not once a document. The body is made with marks for texts and cut where they are.
    """
    prompt = enrichment.prompt
    varying = [turn for turn in prompt.turns if turn.constant is None]

    def body(texts: Sequence[str]) -> bytes:
        return orjson.dumps(dialect.body(enrichment.task, prompt.messages(texts)))

    # No text can hold a hash of itself, so the marks are nowhere else.
    nowhere = hashlib.blake2b(body([""] * len(varying))).hexdigest()
    marks = [f"{nowhere} {turn.number}" for turn in varying]
    rest, parts = body(marks), []
    for mark in marks:
        part, rest = rest.split(orjson.dumps(mark))
        parts.append(part)
    beginning, *between = [*parts, rest]
    return beginning, b"".join(b"%b" + part.replace(b"%", b"%%") for part in between)


def _correction(amendment: Amendment) -> list[Message]:
    """The turns that show a model its own answer and what was wrong with it."""
    if not amendment.error:
        return []
    blank = not amendment.refused_answer.strip()  # no vendor takes a turn without text
    which = "An empty" if blank else "This"
    told = Message("user", f"{which} answer was refused: {amendment.error}. Answer again; obey the schema.")
    return [told] if blank else [Message("assistant", amendment.refused_answer), told]


def _too_long(found: int, allowed: int) -> str:
    return f"the text has {found:,} characters, max_chars is {allowed:,}: split the document, or let it be cut"


def _too_large(found: int, allowed: int) -> str:
    return f"the request is {found:,} bytes, a shard holds {allowed:,}: shorten or split the document"
