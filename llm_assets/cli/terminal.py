"""What all commands share: consoles, JSON, complaints, exit codes, and the platform that they look at."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from llm_assets.errors import LLMAssetsError, meant_or_all
from llm_assets.platform import Platform, Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
FAILED, MISUSED = 1, 2
_INTERRUPTED = 130
_PIPE_COLUMNS = 120


@contextmanager
def looking() -> Iterator[Platform | None]:
    """The platform for a command that only looks, None where there is nothing to see; it makes nothing."""
    settings = Settings.from_environment()
    if not settings.in_use:
        err = new_console(stderr=True)
        err.print(
            f"Nothing was sent yet from {settings.root}. If there should be something, go to the folder that holds "
            ".llm_assets, or set LLM_ASSETS_ROOT.",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
        yield None
        return
    with opened_platform() as platform:
        yield platform


def check_store() -> None:
    """Refuse to begin a second store beside the project's, by mistake: what that one has would be paid again."""
    here, project = Settings.from_environment(), Path(__file__).parents[2]
    if here.in_use or os.environ.get("LLM_ASSETS_ROOT"):
        return
    there = Settings.from_environment({**os.environ, "LLM_ASSETS_ROOT": str(project / ".llm_assets")})
    if there.in_use:
        complain(
            f"nothing was sent yet from {here.root}, and this project keeps its tables in {there.root}: go to "
            f"{project}, or set LLM_ASSETS_ROOT to the one that is meant"
        )
        raise typer.Exit(MISUSED)


@contextmanager
def opened_platform() -> Iterator[Platform]:
    platform = Platform.open(Settings.from_environment())
    try:
        yield platform
    finally:
        platform.close()


@contextmanager
def errors_exit(code: int, stopped: str = "stopped") -> Iterator[None]:
    """What this project raises on purpose becomes one line on standard error and this exit code.

    `stopped` is said after Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        complain(stopped)
        raise typer.Exit(_INTERRUPTED) from None
    except Exception as error:
        known = next(filter(None, map(_told, _chain(error))), None)
        if known is None:
            known = _told_of_a_declaration([*_chain(error)])
        if known is None:
            raise
        complain(known)
        raise typer.Exit(code) from None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it wraps: Dagster puts ours into its own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _told(error: BaseException) -> str | None:
    """The words of our own errors, None of others."""
    return str(error) if isinstance(error, LLMAssetsError) else None


def _told_of_a_declaration(chain: list[BaseException]) -> str | None:
    """What Dagster says of a declaration that it cannot load, in a line."""
    if "dagster" not in sys.modules:
        return None
    from llm_assets import defs
    from llm_assets.cli.declarations import told

    return told(chain, Path(defs.__path__[0]))


def new_console(*, stderr: bool = False) -> Console:
    """A console; where it is no terminal, with room for the tables."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PIPE_COLUMNS)


def complain(message: str) -> None:
    err = new_console(stderr=True)
    err.print(f"llm-assets: {message}", style="red", soft_wrap=True, highlight=False, markup=False)


def print_json(document: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()  # what goes on afterwards may take hours


def operator_name() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def check_known(name: str | None, known: list[str]) -> None:
    if name and known and name not in known:
        complain(f"nothing was ever sent for {name!r}; {meant_or_all(name, known)}")
        raise typer.Exit(MISUSED)
