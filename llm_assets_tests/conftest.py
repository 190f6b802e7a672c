"""What most tests stand on: one emulator process, emptied before each test; a Postgres where one is wanted."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings

from llm_assets.platform import Platform
from llm_assets_tests.aws_server import AWS, aws_server
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import Time, open_platform
from llm_assets_tests.postgres import Postgres
from llm_assets_tests.s3_server import S3Server

# A shared machine may be slow for a second; that is no defect.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("emulator")) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator) -> Emulator:
    running.reset()
    running.settings(latency_s=0)
    return running


@pytest.fixture
def time(emulator: Emulator) -> Time:
    return Time(emulator)


@pytest.fixture
def empty(tmp_path: Path, emulator: Emulator, time: Time) -> Iterator[Platform]:
    """A platform without documents, whose clock is the emulator's."""
    opened = open_platform(tmp_path / "store", emulator.url, time)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    # Not among pytest's own folders: each pytest that starts shuts them to all but its user, and a server that root
    # starts runs as another.
    with TemporaryDirectory(prefix="llm_assets_tests-") as folder, Postgres(Path(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with TemporaryDirectory(prefix="llm_assets_tests-") as folder, S3Server(Path(folder)) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """A server that this process may ask."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(scope="session")
def aws_account() -> Iterator[AWS]:
    with aws_server() as running:
        yield running


@pytest.fixture
def aws(aws_account: AWS, monkeypatch: pytest.MonkeyPatch) -> AWS:
    """An account that this process is in."""
    for name, value in aws_account.environment.items():
        monkeypatch.setenv(name, value)
    return aws_account


@pytest.fixture(params=["sqlite", "postgres"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a ledger that is not there yet, on each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.url()


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The root of a store that is not there yet, in each place."""
    if request.param == "folder":
        return str(tmp_path / "store")
    server: S3Server = request.getfixturevalue("s3")
    return server.root()
