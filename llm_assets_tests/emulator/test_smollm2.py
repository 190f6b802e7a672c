"""The emulator's real language model, with the shipped prompt. Skipped where it is not installed."""

import json
from pathlib import Path
from typing import Any

import pytest

import llm_assets
from llm_assets.emulator.models import Question
from llm_assets.emulator.smollm2 import THREADS, SmolLM2
from llm_assets.prompt import Prompt

PROMPT = Path(llm_assets.__file__).parent / "defs" / "review_sentiment" / "prompt.md"
SMALL = 512  # tokens of context, so that filling it takes two seconds
LABELS = ("positive", "negative", "neutral")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"sentiment": {"type": "string", "enum": list(LABELS)}},
    "required": ["sentiment"],
    "additionalProperties": False,
}
OBVIOUS = {
    "Absolutely wonderful. I love it and use it every day!": "positive",
    "Terrible quality, it broke on the first day. Money down the drain.": "negative",
    "The food was delicious and the staff were lovely.": "positive",
    "The worst film I have ever seen: boring and far too long.": "negative",
    "The service was awful and I will never come back.": "negative",
}


@pytest.fixture(scope="module")
def model() -> SmolLM2:
    return loaded()


@pytest.fixture(scope="module")
def small_model() -> SmolLM2:
    return loaded(context_tokens=SMALL)


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    return Prompt.parse(PROMPT.read_text(encoding="utf-8"), str(PROMPT))


def loaded(**options: int) -> SmolLM2:
    try:
        return SmolLM2(**options)
    except ImportError as error:
        pytest.skip(str(error))  # says what is missing and how to get it


def asked(prompt: Prompt, text: str, max_tokens: int = 64) -> Question:
    messages = [(message.role, message.text) for message in prompt.render({"text": text})]
    system = messages.pop(0)[1] if messages[0][0] == "system" else ""
    return Question(system, tuple(messages), SCHEMA, max_tokens)


def test_answers_obey_the_schema_are_mostly_right_and_repeat_themselves(model: SmolLM2, prompt: Prompt) -> None:
    replies = [model.answer(asked(prompt, text)) for text in OBVIOUS]
    answers = [json.loads(reply.text) for reply in replies]

    assert all(answer.keys() == {"sentiment"} and answer["sentiment"] in LABELS for answer in answers)
    assert all(reply.input_tokens > 100 and 0 < reply.output_tokens <= 64 for reply in replies)
    assert not any(reply.truncated for reply in replies)
    right = [answer["sentiment"] == label for answer, label in zip(answers, OBVIOUS.values(), strict=True)]
    assert sum(right) >= 4
    assert [model.answer(asked(prompt, text)) for text in OBVIOUS] == replies


def test_a_document_longer_than_the_context_is_cut_and_answered(small_model: SmolLM2) -> None:
    text = "It began well. " + "And then it went on and on. " * 1000 + "I loved it."
    reply = small_model.answer(Question("Label the sentiment.", (("user", text),), SCHEMA, 64))

    assert json.loads(reply.text)["sentiment"] in LABELS
    assert SMALL // 2 < reply.input_tokens < SMALL


def test_examples_longer_than_the_context_leave_no_room_for_an_answer(small_model: SmolLM2) -> None:
    reply = small_model.answer(Question("word " * 2 * SMALL, (("user", "Fine."),), SCHEMA, 64))

    assert (reply.text, reply.output_tokens, reply.truncated) == ("", 0, True)
    assert reply.input_tokens > SMALL


def test_an_answer_without_enough_room_is_truncated(model: SmolLM2) -> None:
    reply = model.answer(Question("", (("user", "Count to a hundred."),), None, 3))

    assert (reply.output_tokens, reply.truncated) == (3, True)


@pytest.mark.parametrize("threads", ["0", "-1", "all"])
def test_a_number_of_threads_that_is_none_is_refused(
    model: SmolLM2, monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    monkeypatch.setenv(THREADS, threads)
    with pytest.raises(ValueError, match=f"{THREADS} is '{threads}'; expected a whole number from 1"):
        SmolLM2()
