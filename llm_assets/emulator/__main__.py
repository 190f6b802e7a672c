"""`python -m llm_assets.emulator`."""

import typer

from llm_assets.emulator.server import main

if __name__ == "__main__":
    typer.run(main)
