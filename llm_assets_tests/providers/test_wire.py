from __future__ import annotations

import pytest

from llm_assets.providers.wire import Refusal, retry_after_s, same_origin


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "inf"}, 86_400.0),
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
