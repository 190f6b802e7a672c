"""Keys that AWS keeps: found when a client is made, and nowhere else, whatever is searched."""

import io
import json
import logging
import secrets
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from llm_assets.api_keys import fetched, refused
from llm_assets.definitions import defs
from llm_assets.errors import SystemicError, TransientError
from llm_assets.ledger import Ledger
from llm_assets.platform import Platform, Settings, utc_now
from llm_assets.providers.wire import account_digest
from llm_assets_tests.aws_server import AWS, REGION
from llm_assets_tests.components.projects import materialize
from llm_assets_tests.emulator_process import Emulator

KEY = f"sk-{secrets.token_hex(24)}"  # made up anew each time: a traceback shows the lines of this file
VARIABLE = "ANTHROPIC_API_KEY"
URL = "http://127.0.0.1:9"
ELSEWHERE = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:not/there-AbCdEf"


def new_name() -> str:
    return f"llm_assets/{secrets.token_hex(4)}"


KEPT: dict[str, Callable[[AWS], str]] = {
    "in the environment": lambda _: KEY,
    "in Secrets Manager": lambda aws: aws.secret(new_name(), KEY),
    "in Secrets Manager, with a line break": lambda aws: aws.secret(new_name(), f"{KEY}\n"),
    "in Secrets Manager, among others": lambda aws: aws.secret(new_name(), json.dumps({"a": "b", VARIABLE: KEY})),
    "in Parameter Store": lambda aws: aws.parameter(f"/{new_name()}", KEY),
    "in Parameter Store, without a path": lambda aws: aws.parameter(secrets.token_hex(4), KEY),
}


def platform(said: str, root: Path) -> Platform:
    environment = {VARIABLE: said, "ANTHROPIC_BASE_URL": URL, "LLM_ASSETS_ROOT": str(root)}
    return Platform.open(Settings.from_environment(environment))


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
def test_a_client_has_the_key_wherever_it_is_kept(kept: Callable[[AWS], str], aws: AWS, tmp_path: Path) -> None:
    opened = platform(kept(aws), tmp_path)
    assert opened.client("anthropic", None).account == account_digest(URL, KEY)
    opened.close()


def test_a_key_that_was_replaced_is_the_next_clients(aws: AWS, tmp_path: Path) -> None:
    arn = aws.secret(new_name(), "sk-former")
    for key in ("sk-former", KEY):
        aws.client("secretsmanager").put_secret_value(SecretId=arn, SecretString=key)
        opened = platform(arn, tmp_path)
        assert opened.client("anthropic", None).account == account_digest(URL, key)
        opened.close()


REFUSED: dict[str, tuple[Callable[[AWS], str], str]] = {
    "not there": (lambda _: ELSEWHERE, "ResourceNotFoundException"),
    "no parameter": (lambda _: f"arn:aws:ssm:{REGION}:1:parameter/x", "ParameterNotFound"),
    "something else": (lambda _: "arn:aws:s3:::bucket/key", "the ARN of no secret"),
    "JSON without it": (lambda aws: aws.secret(new_name(), json.dumps({"KEY": KEY})), "has no ANTHR"),
    "JSON in which it is none": (lambda aws: aws.secret(new_name(), json.dumps({VARIABLE: None})), "has no ANTHR"),
    "broken JSON": (lambda aws: aws.secret(new_name(), f"{{{KEY}"), "JSON that has no ANTHR"),
}


@pytest.mark.parametrize(("kept", "words"), REFUSED.values(), ids=REFUSED)
def test_why_there_is_no_key_is_said_without_one(kept: Callable[[AWS], str], words: str, aws: AWS) -> None:
    with pytest.raises(SystemicError, match=words) as caught:
        fetched(kept(aws), VARIABLE)
    assert caught.value.code == "no_api_key"
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "codes"),
    {
        SystemicError: (
            *("ResourceNotFoundException", "ParameterNotFound", "AccessDeniedException", "DecryptionFailure"),
            *("InvalidRequestException", "InvalidParameterException", "ValidationException"),
            "UnrecognizedClientException",
        ),
        TransientError: ("ThrottlingException", "InternalServiceError", "InternalServerError"),
    }.items(),
)
def test_what_a_person_must_mend_is_told_from_what_may_pass(error: type[Exception], codes: tuple[str, ...]) -> None:
    assert {code: type(refused(ELSEWHERE, VARIABLE, code)) for code in codes} == dict.fromkeys(codes, error)


def test_aws_that_does_not_answer_stops_nothing_for_good(aws: AWS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", URL)
    with pytest.raises(TransientError, match="cannot be read now"):
        fetched(ELSEWHERE, VARIABLE)


def test_without_a_role_it_is_said(aws: AWS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(SystemicError, match="no AWS credentials"):
        fetched(ELSEWHERE, VARIABLE)


def test_the_key_reaches_the_provider_and_nothing_else(
    aws: AWS, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    home, store, words = tmp_path / "home", tmp_path / "store", io.StringIO()
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    for name, value in {
        "DAGSTER_HOME": str(home),
        "LLM_ASSETS_ROOT": str(store),
        VARIABLE: aws.secret(new_name(), KEY),
        "ANTHROPIC_BASE_URL": emulator.url,
    }.items():
        monkeypatch.setenv(name, value)
    handler, root = logging.StreamHandler(words), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)  # at which boto3's own libraries would tell what came back
    try:
        with dg.DagsterInstance.get() as instance:
            assets = ("documents/reviews", "review_sentiment/batches")
            assert materialize(defs(), instance, *assets, day="2026-11-01").success
            runs = [f"{run} {run.tags} {run.run_config}" for run in instance.get_runs()]
    finally:
        root.removeHandler(handler)
        root.setLevel(level)

    ledger = Ledger(f"sqlite:///{store / 'ledger.db'}", utc_now)
    assert {shard.account for shard in ledger.active_shards()} == {account_digest(emulator.url, KEY)}
    ledger.close()
    files = {str(file): file.read_bytes() for folder in (home, store) for file in folder.rglob("*") if file.is_file()}
    told = {"runs": "".join(runs), "log": words.getvalue(), "printed": "".join(capfd.readouterr())}
    assert [name for name, content in files.items() if KEY.encode() in content] == []
    assert [name for name, text in told.items() if KEY in text] == []
    assert "secretsmanager" in told["log"]
    assert any("runs" in name for name in files)
