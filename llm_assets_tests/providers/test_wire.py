from __future__ import annotations

import httpx2
import pytest

from llm_assets.errors import OutcomeUnknown, ProviderError, TransientError
from llm_assets.providers.wire import Call, Effect, Refusal, own_words, retry_after_s, same_origin, unreachable


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "inf"}, 3_600.0),
        ({"retry-after": "nan"}, 0.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://api.example.com/a", "https://API.example.com:443/b", True),
        ("http://api.example.com", "http://api.example.com:80/v1", True),
        ("http://api.example.com", "https://api.example.com", False),
        ("https://api.example.com", "https://api.example.com.evil.example", False),
        ("https://api.example.com@evil.example", "https://api.example.com", False),
        ("https://api.example.com:8443", "https://api.example.com", False),
    ],
)
def test_origins(one: str, other: str, same: bool) -> None:
    assert same_origin(one, other) is same


def test_a_refusal_says_no_more_than_needed() -> None:
    assert str(Refusal(500)) == "HTTP 500"
    assert str(Refusal(429, "t", "c", "m" * 300, "r")) == f"HTTP 429 t (c): {'m' * 200} [request r]"


@pytest.mark.parametrize(
    ("cause", "paid"),
    [
        (httpx2.ConnectError("refused"), TransientError),
        (httpx2.ConnectTimeout("slow"), TransientError),
        (httpx2.PoolTimeout("full"), TransientError),
        (httpx2.ReadTimeout("slow"), OutcomeUnknown),
        (httpx2.WriteTimeout("slow"), OutcomeUnknown),
        (httpx2.ReadError("reset"), OutcomeUnknown),
        (httpx2.WriteError("reset"), OutcomeUnknown),
        (httpx2.RemoteProtocolError("closed"), OutcomeUnknown),
        (OSError("disk"), OutcomeUnknown),
        (None, OutcomeUnknown),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_only_what_was_provably_never_sent_may_be_paid_for_again(
    cause: Exception | None, paid: type[ProviderError]
) -> None:
    assert type(unreachable(Call("p", "create", Effect.PAID), cause)) is paid
    assert type(unreachable(Call("p", "stage", Effect.FREE), cause)) is TransientError
    assert type(unreachable(Call("p", "batch", Effect.READ), cause)) is TransientError


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        pytest.param("max_tokens: Field required", "max_tokens: Field required", id="nothing-foreign"),
        pytest.param("Couldn't read 'the patient'", "Couldn't read …", id="an-apostrophe-is-none"),
        pytest.param("your organization's limit, its users' too", "your organization's limit, its users' too", id="of"),
        pytest.param(
            "see https://example.com/a/b " + "c" * 40, "see https://example.com/a/b " + "c" * 40, id="address"
        ),
        pytest.param('invalid value: "the patient"', "invalid value: …", id="double"),
        pytest.param("`the patient` is no value", "…", id="at-once"),
        pytest.param("value=“the patient", "value=…", id="never-closed"),
        pytest.param("invalid value b'the patient'", "invalid value b…", id="bytes"),
        pytest.param("invalid value: " + "the patient has " * 9, "invalid value…", id="a-long-rest"),
        pytest.param("input_value=" + "the patient has\n" * 9, "input_value…", id="a-long-value"),
        pytest.param("invalid value\nthe patient", "invalid value…", id="line"),
        pytest.param('invalid {"a":1}', "invalid …", id="object"),
    ],
)
def test_of_a_vendors_words_its_own_are_kept(message: str, kept: str) -> None:
    assert own_words(message) == kept
