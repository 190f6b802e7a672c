"""Documents × enrichment → requests: rendered, encoded, and identified by a fingerprint.

Pure: a slice of the documents in, a slice of the plan and the encoded bodies out. A document that cannot become
a request is a row of the plan with a reason, and nothing is sent for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson
import polars as pl

from llm_assets.enrichment import Enrichment
from llm_assets.prompt import PromptFailed
from llm_assets.providers import Dialect
from llm_assets.records import DOCUMENT_ID, PLAN_SCHEMA, TEXT, Amendment, Fingerprint, Message, Reason

# What a custom_id, its line and the file around it may add to a body.
_OVERHEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class RenderedSlice:
    """A slice of documents as requests.

    `plan` has PLAN_SCHEMA and the kept columns, a row a document; `bodies` maps each fingerprint of the slice to
    its encoded request body, once however many documents share it.
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
        self._identity = hashlib.blake2b(f"{dialect.name}\n{dialect.endpoint}\n".encode(), digest_size=16)
        self._columns = sorted(enrichment.prompt.variables)

    def render(self, documents: pl.DataFrame) -> RenderedSlice:
        """Requests for a slice of documents (columns document_id, text, and those that the prompt names)."""
        bodies: dict[Fingerprint, bytes] = {}
        fingerprints: list[str | None] = []
        reasons: list[str | None] = []
        messages: list[str | None] = []
        rows = documents.select(self._columns).iter_rows(named=True) if self._columns else None
        for text in documents[TEXT]:
            row = next(rows) if rows is not None else {}
            fingerprint, reason, message = self._request(row, text, bodies)
            fingerprints.append(fingerprint)
            reasons.append(reason)
            messages.append(message)
        columns = (documents[DOCUMENT_ID], fingerprints, reasons, messages)
        plan = pl.DataFrame(dict(zip(PLAN_SCHEMA, columns, strict=True)), schema=PLAN_SCHEMA)
        plan = plan.with_columns(documents.select(self._enrichment.keep))
        return RenderedSlice(plan, bodies)

    def _request(
        self, row: Mapping[str, object], text: str | None, bodies: dict[Fingerprint, bytes]
    ) -> tuple[str | None, str | None, str | None]:
        if not text or text.isspace():
            return None, Reason.EMPTY_DOCUMENT, "the document has no text; nothing was sent for it"
        try:
            messages = self._enrichment.prompt.render(row)
        except PromptFailed as error:
            return None, Reason.PROMPT_FAILED, str(error)
        task = self._enrichment.task
        body = orjson.dumps(self._dialect.body(task, messages))
        if len(body) > self._body_bytes_max:
            return None, Reason.DOCUMENT_TOO_LARGE, _too_large(len(body), self._body_bytes_max)
        fingerprint = self._fingerprint(body)
        if fingerprint not in bodies:
            amendment = self._amendments.get(fingerprint)
            if amendment is not None:
                body = self._amended(amendment, messages)
            # A copy of just its size: orjson leaves up to several times as much allocated behind what it returns.
            bodies[fingerprint] = bytes(memoryview(body))
        return fingerprint, None, None

    def _amended(self, amendment: Amendment, messages: Sequence[Message]) -> bytes:
        """The body of a request that is asked differently; without what was refused where that is too much for a
        shard.
        """
        task = self._enrichment.task
        if amendment.max_tokens != task.max_tokens:
            task = self._enrichment.task_with(amendment.max_tokens)
        body = orjson.dumps(self._dialect.body(task, [*messages, *_correction(amendment)]))
        if len(body) > self._body_bytes_max:
            body = orjson.dumps(self._dialect.body(task, messages))
        return body

    def _fingerprint(self, body: bytes) -> Fingerprint:
        digest = self._identity.copy()
        digest.update(body)
        return Fingerprint(digest.hexdigest())


def _correction(amendment: Amendment) -> list[Message]:
    """The turns that show a model its own answer and what was wrong with it."""
    if not amendment.error:
        return []
    blank = not amendment.refused_answer.strip()  # no vendor takes a turn without text
    which = "An empty" if blank else "This"
    told = Message("user", f"{which} answer was refused: {amendment.error}. Answer again; obey the schema.")
    return [told] if blank else [Message("assistant", amendment.refused_answer), told]


def _too_large(found: int, allowed: int) -> str:
    return f"the request is {found:,} bytes, a shard holds {allowed:,}: shorten or split the document"
