"""The other contenders: tools from PyPI, each in an environment of its own, on the same server with fewer documents."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from venv import EnvBuilder

import polars as pl

from bench.peers.driving import Job, environment
from bench.phase import Measured
from bench.process_tree import PeakMemory
from bench.task import KEY, MAX_TOKENS, MODELS, SYSTEM, documents_path, enrichment, write_documents
from llm_assets_tests.emulator_process import Emulator

_REPOSITORY = Path(__file__).parents[1]
_SECONDS_MAX = 300


@dataclass(frozen=True, slots=True)
class Peer:
    """A tool: its name, `bench/peers/<environment>.txt`, which protocol it is driven over, and what is said of it."""

    name: str
    environment: str
    provider: str
    model: str
    note: str = ""

    @property
    def module(self) -> str:
        """What drives it."""
        return f"bench.peers.{self.name.replace('-', '_')}_run"


# Those that speak to OpenAI ask for chat completions, with parameters that its newest models refuse.
_CHAT_MODEL = "gpt-4o-mini"
PEERS = (
    Peer("instructor", "curator", "openai", _CHAT_MODEL, "all in memory"),
    Peer("llm-batch-py", "steadybatch", "openai", _CHAT_MODEL, "no token count"),
    Peer("curator", "curator", "openai", _CHAT_MODEL, "asks each second"),
    Peer("steadybatch", "steadybatch", "openai", _CHAT_MODEL),
    Peer("steadybatch", "steadybatch", "anthropic", MODELS["anthropic"]),
)


class PeerMissing(Exception):
    """A tool or its environment is not there, or it did not answer every document."""


def run_peers(documents: int, folder: Path, tell: Callable[[str], None]) -> tuple[dict[Peer, Measured], list[str]]:
    """What each peer took for so many documents, and why others are left out. Environments stay under `folder`."""
    found: dict[Peer, Measured] = {}
    pythons, missing = _environments(folder / "peers")
    with TemporaryDirectory(prefix="scratch-", dir=folder) as scratch, Emulator(Path(scratch, "emulator")) as emulator:
        write_documents(Path(scratch, "source"), documents)
        rows = pl.read_parquet(documents_path(Path(scratch, "source"))).to_dicts()
        for peer in (peer for peer in PEERS if peer.environment in pythons):
            tell(f"{peer.name} over {peer.provider}")
            try:
                with TemporaryDirectory(dir=scratch) as own:
                    found[peer] = drive(peer, pythons[peer.environment], rows, Path(own), emulator.url)
            except PeerMissing as error:
                missing.append(f"{peer.name} over {peer.provider} left out: {error}")
            emulator.reset()
    return found, missing


def _environments(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The Python of each environment, and which tools are left out for want of one."""
    pythons: dict[str, Path] = {}
    missing = []
    for name in sorted({peer.environment for peer in PEERS}):
        try:
            pythons[name] = environment_python(name, folder)
        except PeerMissing as error:
            tools = sorted({peer.name for peer in PEERS if peer.environment == name})
            missing.append(f"{' and '.join(tools)} left out: {error}")
    return pythons, missing


def drive(peer: Peer, python: Path, rows: list[dict[str, str]], folder: Path, url: str) -> Measured:
    """Have a peer answer these documents; what it keeps is in `folder`. Raises PeerMissing."""
    schema = enrichment(peer.provider).output.json_schema
    job = Job(peer.provider, peer.model, SYSTEM, schema, MAX_TOKENS, url, KEY, str(folder), rows)
    (folder / "job.json").write_text(json.dumps(asdict(job)))
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(  # noqa: S603
            [python, "-m", peer.module, folder / "job.json"],
            cwd=_REPOSITORY,
            env=environment(peer.provider, url, KEY, folder),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
        PeakMemory(process.pid) as memory,
    ):
        try:
            output, _ = process.communicate(timeout=_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            raise PeerMissing(f"it was not done after {_SECONDS_MAX} seconds") from None
    if process.returncode != 0:
        last = (folder / "log").read_text(errors="replace").strip().rpartition("\n")[2]
        raise PeerMissing(f"exit code {process.returncode}, {last[:200]}")
    measured = replace(Measured(**json.loads(output)), peak_mib=memory.peak_mib)
    if measured.documents != len(rows):
        raise PeerMissing(f"it has answers to {measured.documents:,} of {len(rows):,} documents")
    return measured


def environment_python(name: str, folders: Path) -> Path:
    """The Python of the environment of this name, in a folder of its own; made anew unless it is there already.

    Raises PeerMissing.
    """
    wanted, folder = Path(__file__).parent / "peers" / f"{name}.txt", (folders / name).absolute()
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    if installed.exists() and installed.read_text() == wanted.read_text():
        return python
    EnvBuilder(clear=True, with_pip=True).create(folder)
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
    ]
    done = subprocess.run([*pip, "--requirement", wanted], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise PeerMissing(f"it could not be installed, {errors[0][:160] if errors else 'pip failed'}")
    installed.write_text(wanted.read_text())
    return python
