"""The answers of two enrichments to the same documents → pairs, each in both orders, for a judge to read. Pure.

Who reads two texts may prefer the one that stands first whatever it says. So a pair is two documents: as declared, and
swapped. What comes of their verdicts is for judging.py.
"""

from __future__ import annotations

import polars as pl

from llm_assets.records import DOCUMENT_ID, TEXT

FIRST, SECOND = "first", "second"
ORDER, PARENT = "order", "parent_id"
AS_DECLARED, SWAPPED = "as declared", "swapped"
# The columns of pairs as documents, before those that are carried on.
PAIR_SCHEMA: dict[str, pl.DataType] = {
    DOCUMENT_ID: pl.String(),
    TEXT: pl.String(),
    PARENT: pl.String(),
    ORDER: pl.String(),
    FIRST: pl.String(),
    SECOND: pl.String(),
}


def paired(documents: pl.LazyFrame, one: pl.LazyFrame, other: pl.LazyFrame) -> pl.LazyFrame:
    """The documents with what both say of them: their columns, and `one` and `other`, null where there is no answer.

    `one` and `other` have `document_id` and `answer`.
    """
    for name, answers in (("one", one), ("other", other)):
        said = answers.select(DOCUMENT_ID, pl.col("answer").cast(pl.String).alias(name))
        documents = documents.join(said, on=DOCUMENT_ID, how="left", maintain_order="left")
    return documents


def in_both_orders(pairs: pl.LazyFrame, columns: tuple[str, ...] = ()) -> pl.LazyFrame:
    """PAIR_SCHEMA and `columns`: two rows for each pair (see `paired`) that is worth a question.

    None are those of which an answer is missing, and those whose answers are the same.
    """
    number = pl.col(ORDER).replace_strict({AS_DECLARED: 1, SWAPPED: 2}, return_dtype=pl.Int32)
    is_declared = pl.col(ORDER) == AS_DECLARED
    return (
        pairs.filter(pl.col("one") != pl.col("other"))
        .with_columns(pl.lit([AS_DECLARED, SWAPPED]).alias(ORDER))
        .explode(ORDER)
        .select(
            pl.format("{}#{}", DOCUMENT_ID, number).alias(DOCUMENT_ID),
            TEXT,
            pl.col(DOCUMENT_ID).alias(PARENT),
            ORDER,
            pl.when(is_declared).then("one").otherwise("other").alias(FIRST),
            pl.when(is_declared).then("other").otherwise("one").alias(SECOND),
            *columns,
        )
    )


def with_verdicts(pairs: pl.LazyFrame, verdicts: pl.LazyFrame) -> pl.LazyFrame:
    """`pairs` with `as_declared` and `swapped`, what was said in each order, and `cost_usd`, what both cost.

    `verdicts` has `document_id` of the rows that `in_both_orders` makes, `verdict` (null when there is none) and
    `cost_usd`.
    """
    for number, order in ((1, "as_declared"), (2, "swapped")):
        said = verdicts.select(
            pl.col(DOCUMENT_ID).alias("asked"), pl.col("verdict").alias(order), pl.col("cost_usd").alias(f"{order}_usd")
        )
        asked = pairs.with_columns(pl.format(f"{{}}#{number}", DOCUMENT_ID).alias("asked"))
        pairs = asked.join(said, on="asked", how="left", maintain_order="left").drop("asked")
    return pairs.with_columns(pl.sum_horizontal("as_declared_usd", "swapped_usd").alias("cost_usd"))
