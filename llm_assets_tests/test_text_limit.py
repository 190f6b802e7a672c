"""Texts that are too long: refused before anything is sent, or cut with a mark, and told in the table."""

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from llm_assets.components import Enrichment as Declaration
from llm_assets.errors import DeclarationError
from llm_assets.platform import Platform
from llm_assets.records import Reason
from llm_assets.text_limit import MARK, WAS_CUT, TextLimit, TooLong
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import enriched, failed, finish, labels, reasons, run, submit, write_documents

CUT = TextLimit(200, TooLong.TRUNCATE)
LONG = "Nothing works. " * 40


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        pytest.param("One. " * 60, "One. " * 31 + "One.", id="between sentences"),
        pytest.param("a" * 80 + "\n\n" + "b" * 300, "a" * 80, id="between paragraphs"),
        pytest.param("Title\n\n" + "One. " * 60, "Title\n\n" + "One. " * 29 + "One.", id="not after a title"),
        pytest.param("Hi. " + "x" * 300, "Hi. " + "x" * 155, id="not after a greeting"),
        pytest.param("word " * 60, "word " * 31 + "word", id="between words"),
        pytest.param("x" * 300, "x" * 159, id="anywhere, where there is no better place"),
        pytest.param("\n " * 300 + "Late. " * 60, "Late. " * 25 + "Late.", id="after blanks"),
        pytest.param("é" * 300, "é" * 159, id="characters, not bytes"),
    ],
)
def test_a_text_is_cut_where_it_hurts_least_and_says_so(text: str, beginning: str) -> None:
    cut = CUT.cut(text)
    assert cut == f"{beginning}\n\n{MARK}"
    assert len(cut) <= CUT.max_chars


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        pytest.param(TextLimit(99), "max_chars is 99; it must be at least 100", id="too short"),
        pytest.param(TextLimit(100), None, id="refused when longer"),
        pytest.param(
            TextLimit(140, TooLong.TRUNCATE), "must be at least 141, so that 100 remain beside the mark", id="no room"
        ),
        pytest.param(TextLimit(141, TooLong.TRUNCATE), None, id="just room"),
        pytest.param(TextLimit(200, TooLong.TRUNCATE, " "), "cut_mark is empty", id="no mark"),
    ],
)
def test_a_limit_that_cannot_work_is_told(limit: TextLimit, told: str | None) -> None:
    problems = list(replace(labels("anthropic"), text_limit=limit)._number_problems())
    assert len(problems) == (told is not None)
    assert (told or "") in "".join(problems)


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        pytest.param({"too_long": "truncate"}, "too_long and cut_mark need `max_chars`", id="no length"),
        pytest.param({"cut_mark": "[cut]"}, "too_long and cut_mark need `max_chars`", id="a mark for nothing"),
        pytest.param({"max_chars": 500, "too_long": "split"}, "too_long is 'split'; there are refuse, trunc", id="no"),
    ],
)
def test_a_policy_that_is_none_is_told(declared: dict[str, Any], told: str) -> None:
    given = {"name": "n", "documents": "d", "provider": "openai", "model_name": "gpt-6-luna", **declared}
    with pytest.raises(DeclarationError, match=told):
        Declaration(**given)._text_limit("defs.yaml")


def test_what_is_too_long_is_refused_before_anything_is_sent(empty: Platform, emulator: Emulator) -> None:
    asked = replace(labels("anthropic"), text_limit=TextLimit(200))
    run(empty, asked, ["It works.", LONG])
    assert reasons(empty, asked) == {"d1": Reason.DOCUMENT_TOO_LARGE}
    (message,) = failed(empty, asked)["message"]
    assert message == "the text has 600 characters, max_chars is 200: split the document, or let it be cut"
    assert emulator.accounting()["billed"] == 1


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_what_is_cut_is_told_and_costs_what_was_sent(empty: Platform, emulator: Emulator, provider: str) -> None:
    asked = replace(labels(provider), text_limit=CUT)
    run(empty, asked, ["It works.", LONG, LONG + "Not seen."])
    answers = enriched(empty, asked)
    assert answers[WAS_CUT].to_list() == [False, True, True]
    assert answers["fingerprint"][1] == answers["fingerprint"][2]  # what differs was cut
    assert emulator.accounting()["billed"] == 2
    assert (answers["input_tokens"] < 100).all()


def test_a_limit_that_is_declared_later_asks_only_about_what_it_changes(empty: Platform, emulator: Emulator) -> None:
    asked = labels("openai")
    run(empty, asked, ["It works.", LONG])
    limited = replace(asked, text_limit=CUT)
    submit(empty, limited)
    finish(empty, limited)
    assert enriched(empty, limited)[WAS_CUT].to_list() == [False, True]
    assert emulator.accounting()["billed"] == 3


def test_documents_without_text_are_neither_cut_nor_long(empty: Platform) -> None:
    asked = replace(labels("openai"), text_limit=CUT)
    write_documents(empty, [None, " " * 500, "It works."])
    submit(empty, asked)
    finish(empty, asked)
    assert reasons(empty, asked) == {"d0": Reason.EMPTY_DOCUMENT, "d1": Reason.EMPTY_DOCUMENT}
    assert enriched(empty, asked).schema[WAS_CUT] == pl.Boolean
