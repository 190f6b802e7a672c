"""Tables of documents made from other tables: filtered, split into parts, put together, a row an item of a list.

So enrichments are chained: the answers of one are the documents of the next, and a long document is asked about in
parts whose answers are put together for a last question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import polars as pl
from polars.datatypes import DataTypeClass
from polars.exceptions import PolarsError
from semantic_text_splitter import TextSplitter

from llm_assets.errors import DeclarationError, DocumentsError
from llm_assets.records import DOCUMENT_ID, TEXT

PARENT, ITEM, PART, PARTS, MISSING = "parent_id", "item", "part", "parts", "missing_parts"
_SPLIT_CHARS_MIN = 100
_BETWEEN = "\n\n"


@dataclass(frozen=True)
class Derivation:
    """How rows of a table become documents.

    `upstream` is the schema of that table, which has `document_id`. `text_column` becomes `text`; `columns` are carried
    on. `where` is a condition in SQL. At most one of these changes what a row is: `explode` names a list column and
    makes a row an item (`parent_id`, `item` from 1, and the fields of items that are objects); `split_chars` makes a
    row a part of the text of at most so many characters, cut between paragraphs or sentences where that is possible
    (`parent_id`, `part` from 1, `parts`); `group_by` makes a row a value of a column, which becomes its id, with the
    texts put together in the order of `part` (`parts`, `missing_parts`). `source` is the file that declares this.
    """

    name: str
    upstream: Mapping[str, pl.DataType]
    text_column: str = TEXT
    columns: tuple[str, ...] = ()
    where: str | None = None
    explode: str | None = None
    split_chars: int | None = None
    group_by: str | None = None
    source: str = ""

    def check(self) -> None:
        """Raise one DeclarationError that lists all that is wrong."""
        DeclarationError.raise_for(self.source, self._problems())

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        """The columns of the documents. Only for a derivation that `check` lets pass."""
        return dict(self.documents(pl.LazyFrame(schema=self.upstream)).collect_schema())

    @cached_property
    def needs_text(self) -> bool:
        """Whether the upstream's column `text` is used."""
        named = pl.sql_expr(self.where).meta.root_names() if self.where is not None else []
        return TEXT in (self.text_column, *self.columns, *named)

    def documents(self, table: pl.LazyFrame) -> pl.LazyFrame:
        """The documents that a table of the upstream's schema makes."""
        if self.where is not None:
            table = table.filter(pl.sql_expr(self.where))
        kept = [DOCUMENT_ID, pl.col(self.text_column).cast(pl.String).alias(TEXT), *self.columns]
        if self.explode is not None:
            return self._exploded(table, self.explode)
        if self.split_chars is not None:
            return self._split(table.select(kept), self.split_chars)
        if self.group_by is not None:
            return self._grouped(table, self.group_by)
        return table.select(kept)

    def _exploded(self, table: pl.LazyFrame, column: str) -> pl.LazyFrame:
        items = pl.col(column)
        upstream = [name for name in (*self.columns, self.text_column) if name not in self._items]
        rows = (
            table.filter(items.list.len() > 0)
            .select(pl.col(DOCUMENT_ID).alias(PARENT), *dict.fromkeys(upstream), column)
            .with_columns(pl.int_ranges(1, items.list.len() + 1).alias(ITEM))
            .explode(column, ITEM)
        )
        if column not in self._items:
            rows = rows.unnest(column)
        names = [name for name in self._items if name != TEXT]
        text = pl.col(self.text_column).cast(pl.String).alias(TEXT)
        return rows.select(_numbered(ITEM), text, PARENT, ITEM, *self.columns, *names)

    @cached_property
    def _items(self) -> dict[str, pl.DataType]:
        """The columns that the items of `explode` make: their fields, or themselves when they are no objects."""
        dtype = self.upstream.get(self.explode or "")
        if self.explode is None or not isinstance(dtype, pl.List):
            return {}
        inner = dtype.inner
        if isinstance(inner, pl.Struct):
            return {one.name: _instance(one.dtype) for one in inner.fields}
        return {self.explode: _instance(inner)}

    def _split(self, table: pl.LazyFrame, characters: int) -> pl.LazyFrame:
        splitter = TextSplitter(characters)

        def parts(texts: pl.Series) -> pl.Series:
            # What has no text stays a document, and fails as one without text.
            return pl.Series([splitter.chunks(text or "") or [text] for text in texts], dtype=pl.List(pl.String))

        return (
            table.with_columns(pl.col(TEXT).map_batches(parts, return_dtype=pl.List(pl.String), is_elementwise=True))
            .with_columns(pl.col(TEXT).list.len().cast(pl.Int64).alias(PARTS))
            .with_columns(pl.int_ranges(1, pl.col(PARTS) + 1).alias(PART))
            .explode(TEXT, PART)
            .rename({DOCUMENT_ID: PARENT})
            .with_columns(_numbered(PART))
            .select(DOCUMENT_ID, TEXT, PARENT, PART, PARTS, *self.columns)
        )

    def _grouped(self, table: pl.LazyFrame, by: str) -> pl.LazyFrame:
        is_split = {PART, PARTS} <= self.upstream.keys()
        text = pl.col(self.text_column).cast(pl.String)
        together = text.sort_by(PART) if is_split else text
        found = pl.len().cast(pl.Int64)
        parts = pl.col(PARTS).first() if is_split else found
        return (
            table.filter(pl.col(by).is_not_null())
            .group_by(pl.col(by).cast(pl.String).alias(DOCUMENT_ID), maintain_order=True)
            .agg(
                together.str.join(_BETWEEN).alias(TEXT),
                parts.alias(PARTS),
                (parts - found).alias(MISSING),
                *(pl.col(name).first() for name in self.columns),
            )
            .with_columns(
                pl.when(pl.col(MISSING) > 0)
                .then(pl.format(f"{{}}{_BETWEEN}[{{}} of {{}} parts are missing]", TEXT, MISSING, PARTS))
                .otherwise(TEXT)
                .alias(TEXT)
            )
        )

    def _problems(self) -> Iterator[str]:
        there = f"there are {', '.join(self.upstream)}"
        shapes = {"explode": self.explode, "split_chars": self.split_chars, "group_by": self.group_by}
        declared = [name for name, value in shapes.items() if value is not None]
        if len(declared) > 1:
            yield f"{' and '.join(declared)} are declared; take one of them, and make another table of this one"
            return
        for key, name in (("explode", self.explode), ("group_by", self.group_by)):
            if name is not None and name not in self.upstream:
                yield f"{key} names the column {name!r}, but {there}"
                return
        if self.explode is not None and not isinstance(self.upstream[self.explode], pl.List):
            yield f"explode names {self.explode!r}, which is no list but {self.upstream[self.explode]}"
            return
        if self.split_chars is not None and self.split_chars < _SPLIT_CHARS_MIN:
            yield f"split_chars is {self.split_chars}; it must be at least {_SPLIT_CHARS_MIN} characters"
        yield from self._column_problems(there)
        if self.where is not None:
            yield from self._where_problems()

    def _column_problems(self, there: str) -> Iterator[str]:
        shape, made = self._made
        dtype = (dict(self.upstream) | self._items).get(self.text_column)
        if dtype is None:
            items = f"; an item has {', '.join(self._items)}" if self._items else ""
            yield f"text_column names {self.text_column!r}, but {there}{items}"
        elif dtype.is_nested() or dtype == pl.Binary:
            yield f"text_column names {self.text_column!r}, which holds no text but {dtype}"
        for name in self.columns:
            if name not in self.upstream:
                yield f"columns names {name!r}, but {there}"
            elif name in made:
                yield f"columns names {name!r}, which {shape} makes itself; leave it out"
        for name in sorted({name for name in self.columns if self.columns.count(name) > 1}):
            yield f"columns names {name!r} more than once"
        for name in self._items:
            if name in (DOCUMENT_ID, PARENT, ITEM):
                yield f"the items of {self.explode} have a field {name!r}, which explode makes itself; rename it"

    @property
    def _made(self) -> tuple[str, tuple[str, ...]]:
        """What changes the rows, and the columns that it makes."""
        if self.explode is not None:
            return "explode", (DOCUMENT_ID, TEXT, PARENT, ITEM, *self._items)
        if self.split_chars is not None:
            return "split_chars", (DOCUMENT_ID, TEXT, PARENT, PART, PARTS)
        if self.group_by is not None:
            return "group_by", (DOCUMENT_ID, TEXT, PARTS, MISSING)
        return "every table", (DOCUMENT_ID, TEXT)

    def _where_problems(self) -> Iterator[str]:
        try:
            condition = pl.LazyFrame(schema=self.upstream).select(pl.sql_expr(self.where or "")).collect_schema()
        except PolarsError as error:
            yield f"where is {self.where!r}, which is no condition on these columns: {str(error).splitlines()[0]}"
            return
        if list(condition.dtypes()) != [pl.Boolean]:
            yield f"where is {self.where!r}, which is neither true nor false; compare something, as in `stars < 3`"


def with_texts(answers: pl.LazyFrame, documents: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Slices of `answers` with the `text` of each document.

    `answers` has some of the documents, in their order. Raises DocumentsError when it has others.
    """
    height = answers.select(pl.len()).collect().item()
    start = 0
    for piece in documents:
        window = answers.slice(start, piece.height).collect()
        found = window.join(piece.select(DOCUMENT_ID, TEXT), on=DOCUMENT_ID, how="inner", maintain_order="left")
        start += found.height
        yield found
    if start != height:
        raise DocumentsError(
            f"{height - start:,} of {height:,} rows are of documents that are not there any more: they were read again "
            "since. Materialize the enrichment again first"
        )


def _instance(dtype: pl.DataType | DataTypeClass) -> pl.DataType:
    return dtype if isinstance(dtype, pl.DataType) else dtype()


def _numbered(number: str) -> pl.Expr:
    return pl.format("{}#{}", PARENT, number).alias(DOCUMENT_ID)
