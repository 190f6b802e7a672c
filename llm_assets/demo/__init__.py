"""The demo: shipped enrichments through a real daemon and both batch protocols, answered by the local emulator.

    emulator ◀── batches ── dagster dev: webserver, daemon, code server ──▶ .demo/store, .demo/dagster_home
                                   ▲ launches runs, then only reads the ledger
                                 Demo

It orchestrates processes and reads what they did; nothing here is part of the flow itself. `story.py` is what happens,
`kinds.py` what there is to show, `services.py` the processes that it takes, `folder.py` whose they are, `webserver.py`
what Dagster is asked, `sample.py` what came of it.
"""

from llm_assets.demo.kinds import KINDS, LABELS, KindName
from llm_assets.demo.loopback import HOST, free_port, get
from llm_assets.demo.sample import Report, accuracy, examples, extra_bills
from llm_assets.demo.services import ROOT, Service
from llm_assets.demo.story import POLL_SECONDS, Demo, Options

__all__ = [
    "HOST",
    "KINDS",
    "LABELS",
    "POLL_SECONDS",
    "ROOT",
    "Demo",
    "KindName",
    "Options",
    "Report",
    "Service",
    "accuracy",
    "examples",
    "extra_bills",
    "free_port",
    "get",
]
