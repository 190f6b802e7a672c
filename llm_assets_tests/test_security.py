"""What docs/security.md claims, as far as a test can show it; about keys test_secrets.py and test_api_keys.py do."""

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
import trustme

from llm_assets import store as store_module
from llm_assets.api_keys import fetched
from llm_assets.documents import DocumentSource
from llm_assets.errors import DeclarationError, DocumentsError, TransientError
from llm_assets.ledger.tables import metadata
from llm_assets.prompt import Prompt, PromptFailed
from llm_assets.providers import Credentials, get_provider
from llm_assets.store import Store
from llm_assets_tests.aws_server import AWS, REGION
from llm_assets_tests.providers.http_server import Server, json_reply, serving
from llm_assets_tests.s3_server import BUCKET, S3Server

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PAGE = (ROOT / "docs" / "security.md").read_text()
PROVIDERS = ("anthropic", "openai")


# -- TLS


@dataclass
class Secure:
    """A server with a certificate of an authority that nobody knows; `authority` is its file."""

    server: Server
    url: str
    authority: str


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Secure]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serving(context) as server:
        yield Secure(server, server.url.replace("http:", "https:"), str(tmp_path / "authority.pem"))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_certificate_that_nobody_trusts_is_given_no_key(provider: str, secure: Secure) -> None:
    with (
        closing(get_provider(provider).connect(Credentials("k", secure.url))) as client,
        pytest.raises(TransientError, match="its certificate is not trusted"),
    ):
        client.batches()
    assert secure.server.asked == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_authority_of_ones_own_is_trusted_when_it_is_named(
    provider: str, secure: Secure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", secure.authority)
    secure.server.will(json_reply({"data": [], "has_more": False}))
    with closing(get_provider(provider).connect(Credentials("k", secure.url))) as client:
        assert client.batches().batches == ()
    assert len(secure.server.asked) == 1


def test_aws_with_such_a_certificate_is_asked_for_no_key(
    secure: Secure, aws: AWS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", secure.url)
    with pytest.raises(TransientError, match="SSLError"):
        fetched(f"arn:aws:secretsmanager:{REGION}:1:secret:x", "OPENAI_API_KEY")
    assert secure.server.asked == []


# -- loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_the_emulator_does_not_start_where_others_could_reach_it(host: str) -> None:
    command = [str(BIN / "llm-assets"), "emulator", "--host", host, "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"refusing to listen on {host!r}" in done.stderr


# -- names of partitions

KEYS = ["..", ".", "../../x", "a/b", "/etc/passwd", "a\\b", "x\0y", "a%2Fb", "%2e%2e", "a?b#c", "~", "*", "ä"]


@pytest.fixture(params=["a folder", "S3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "a folder":
        return Store(tmp_path / "store")
    server: S3Server = request.getfixturevalue("s3")
    return Store(server.root())


def all_names(store: Store, tmp_path: Path, s3_server: S3Server) -> set[str]:
    """Whatever there is, inside the store or beside it."""
    root = store.files.where()
    if not root.startswith("s3:"):
        return {str(path) for path in tmp_path.rglob("*") if path.is_file()}
    listed = [entry["path"] for page in s3_server.objects().list() for entry in page]
    return {f"s3://{BUCKET}/{path}" for path in listed}


def test_no_partition_leaves_its_folder_or_is_taken_for_another(
    store: Store, tmp_path: Path, s3_server: S3Server
) -> None:
    before = all_names(store, tmp_path, s3_server)
    for key in KEYS:
        store.write(store.documents("reviews", key), pl.DataFrame({"key": [key]}))
    written = all_names(store, tmp_path, s3_server) - before
    folder = store.files.where("documents/reviews") + "/"
    assert len(written) == len(KEYS)
    assert {name for name in written if not name.startswith(folder) or "/" in name[len(folder) :]} == set()
    for key in KEYS:
        assert store.scan(store.documents("reviews", key)).collect()["key"].to_list() == [key]


@pytest.mark.parametrize("key", ["..", "../../x", "a/b", "a\\b", "x\0y", ""])
def test_no_partition_reads_another_folder(key: str, tmp_path: Path) -> None:
    outside = tmp_path / "x.csv"
    outside.write_text("id,body\n1,secret\n")
    source = DocumentSource(
        name="d", path="in/{partition}.csv", id_column="id", text_column="body", base=tmp_path, source="defs.yaml"
    )
    (tmp_path / "in").mkdir()
    with pytest.raises(DocumentsError, match="cannot be part of a path"):
        source.files(key)


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "A", "x\0y", "", "a" * 61])
def test_no_table_is_called_like_a_path(name: str) -> None:
    source = DocumentSource(name=name, path="{partition}.csv", id_column="id", text_column="body", source="defs.yaml")
    with pytest.raises(DeclarationError, match="must begin with a lower-case letter"):
        source.check()


# -- templates

ATTACKS = {
    "class of a string": "{{ ''.__class__ }}",
    "class of a value": "{{ text.__class__.__mro__ }}",
    "by a filter": "{{ text|attr('__class__') }}",
    "of each item": "{{ [text]|map(attribute='__class__')|first }}",
    "a method": "{{ text.format(1) }}",
    "globals": "{{ debug() }}",
    "a namespace": "{{ namespace(x=1) }}",
    "a file": "{% include '/etc/passwd' %}",
    "an import": "{% import 'os' as os %}",
    "a range": "{{ range(1000000000) }}",
    "loops in loops": "{% for a in text %}" * 5 + "x" + "{% endfor %}" * 5,
    "a macro without end": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "a loop without end": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "a string times a billion": "{{ text * 1000000000 }}",
    "a list times a billion": "{% for x in [1] * 1000000000 %}x{% endfor %}",
}


@pytest.mark.parametrize("template", ATTACKS.values(), ids=ATTACKS)
def test_a_template_reaches_nothing_but_its_columns_and_has_an_end(template: str) -> None:
    with pytest.raises((DeclarationError, PromptFailed)):
        Prompt.parse(f"user:\n{template}", "prompt.md").render({"text": "abcdefgh" * 100})


@pytest.mark.parametrize("text", ["{{ ''.__class__ }}", "{% for a in text %}", "user:\n{{ text }}", "{{ text }}"])
def test_a_document_is_no_template(text: str) -> None:
    (message,) = Prompt.parse("user:\n{{ text }}", "prompt.md").render({"text": text})
    assert message.text == text


# -- what is kept


def told(section: str) -> set[str]:
    """What the first column of a section's table names."""
    text = PAGE.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (`.+?`) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_every_table_of_the_ledger_is_told() -> None:
    names = {name for name in told("What is kept, where, and how long") if name.isidentifier()}
    assert set(metadata.tables) == names


def test_every_kind_of_file_in_the_store_is_told() -> None:
    documented = re.findall(r"^    ([\w<>/().,-]+)", store_module.__doc__ or "", re.MULTILINE)
    folders = {"/".join(part for part in path.split("/")[:-1] if "<" not in part) for path in documented} - {""}
    page = " ".join(told("What is kept, where, and how long"))
    assert folders
    assert {folder for folder in folders if folder.split("/")[0] not in page} == set()


# -- dependencies

KNOWN = {"vulns": [{"id": "PYSEC-0-0", "summary": "a hole", "affected": [], "modified": "2026-01-01T00:00:00Z"}]}


def audited(url: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """`make audit`, asking the service at a URL."""
    service = {"PIP_AUDIT_VULNERABILITY_SERVICE": "osv", "PIP_AUDIT_OSV_URL": url, "XDG_CACHE_HOME": str(tmp_path)}
    command = ["make", "--old-file", f"{BIN.parent}/.installed", f"VENV={BIN.parent}", "audit"]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | service, capture_output=True, text=True, timeout=120, check=False
    )


def test_an_audit_fails_for_a_hole_that_is_known(tmp_path: Path) -> None:
    with serving() as service:
        service.answer = lambda asked: json_reply(KNOWN if b'"starlette"' in asked.body else {})
        done = audited(service.url, tmp_path)
        pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
        assert len(service.asked) == len(pinned)
    assert done.returncode != 0
    assert re.search("starlette.*PYSEC-0-0", done.stdout)


def test_an_audit_passes_where_none_is(tmp_path: Path) -> None:
    with serving() as service:
        service.answer = lambda _: json_reply({})
        done = audited(service.url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "No known vulnerabilities" in done.stdout


def test_an_audit_without_a_network_says_that_nothing_was_checked(tmp_path: Path) -> None:
    done = audited("http://127.0.0.1:9", tmp_path)
    assert done.returncode == 0
    assert "nothing was checked" in done.stdout
