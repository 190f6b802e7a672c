"""`python -m live`: three rows through each vendor whose key is set, beside the emulator; where they differ."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from live.conversation import MODELS, Conversation, NoConversation
from live.facts import Difference, differences
from llm_assets.platform import Settings
from llm_assets.providers import Credentials
from llm_assets_tests.emulator_process import Emulator

_NO_KEY = (
    "No key is set (ANTHROPIC_API_KEY, OPENAI_API_KEY): nothing was sent. With one, three rows go through that "
    "vendor's batch endpoint, for less than a cent."
)


def main(
    pause_seconds: Annotated[float, typer.Option(min=0.1, help="Between two looks at a batch.")] = 30,
    hours_max: Annotated[float, typer.Option(min=0, help="How long to wait for a batch.")] = 25,
) -> None:
    """Send three rows through each vendor whose key is set, and say where its answers differ from the emulator's."""
    out = Console()
    credentials = Settings.from_environment().credentials
    if not credentials:
        out.print(_NO_KEY, soft_wrap=True)
        return
    with TemporaryDirectory() as folder, Emulator(Path(folder)) as emulator:
        emulated = {
            "anthropic": Credentials("emulator", emulator.url),
            "openai": Credentials("emulator", emulator.openai_url),
        }
        told = [
            _check(out, vendor, credentials[vendor], emulated[vendor], pause_seconds, hours_max)
            for vendor in MODELS
            if vendor in credentials
        ]
    raise typer.Exit(0 if all(told) else 1)


def _check(
    out: Console, vendor: str, real: Credentials, emulated: Credentials, pause_seconds: float, hours_max: float
) -> bool:
    """Both conversations, and what they tell. False when the vendor took no batch."""
    out.print(
        f"[bold]{vendor}[/]: three rows to {real.base_url or 'the vendor'}, for less than a cent", highlight=False
    )
    try:
        found = Conversation(vendor, real, _waiting(out, pause_seconds, hours_max)).hold()
    except NoConversation as problem:
        out.print(f"  {problem}", style="red", highlight=False)
        return False
    expected = Conversation(vendor, emulated, _waiting(out, 0.1, 0.1)).hold()
    different = differences(found, expected)
    out.print(
        f"  {len(found.keys() | expected.keys()) - len(different)} points are as the emulator has them", highlight=False
    )
    if different:
        out.print(_table(different))
    return True


def _waiting(out: Console, seconds: float, hours_max: float) -> Callable[[str], None]:
    until = time.monotonic() + hours_max * 3600

    def pause(said: str) -> None:
        if time.monotonic() > until:
            raise NoConversation(f"{said} after {hours_max} hours; it may still end, and is paid then")
        out.print(f"  {said}", style="dim", highlight=False)
        time.sleep(seconds)  # a vendor says nothing by itself

    return pause


def _table(different: list[Difference]) -> Table:
    table = Table("point", "vendor", "emulator", box=None, pad_edge=False, title_justify="left")
    for each in different:
        table.add_row(each.point, each.found or "-", each.expected or "-")
    return table


if __name__ == "__main__":
    typer.run(main)
