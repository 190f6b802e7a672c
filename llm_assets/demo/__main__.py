"""`python -m llm_assets.demo`: the command `llm-assets demo`, which takes this process over, signals and all."""

import os
import sys

_COMMAND = "from llm_assets.cli import app; app(prog_name='llm-assets')"  # a layer above: not to be imported from here

if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "-c", _COMMAND, "demo", *sys.argv[1:]])  # noqa: S606
