"""How long Dagster takes to load a project with 200 enrichments, beside one with none: a process each, from its start.

python -m bench.loading FOLDER
"""

from __future__ import annotations

import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import dagster as dg

from bench.task import DOCUMENTS, MODELS, PROVIDERS, SENTIMENTS, SYSTEM

ENRICHMENTS = 200
_SECONDS_MAX = 300
_PROJECT = """
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "bench_project"
"""
_DOCUMENTS = f"""
type: llm_assets.components.Documents
attributes:
  name: {DOCUMENTS}
  path: data/{{partition}}.csv
  id_column: id
  text_column: text
  start_date: "2026-11-01"
"""
_COMPLETION = """
type: llm_assets.components.BatchCompletion
attributes:
  every_seconds: {every_seconds}
"""
_DEFINITIONS = """
from pathlib import Path

import dagster as dg

from llm_assets.components.resources import PlatformResource

defs = dg.Definitions.merge(
    dg.load_from_defs_folder(path_within_project=Path(__file__).parent),
    dg.Definitions(resources={"platform": PlatformResource()}, executor=dg.in_process_executor),
)
"""
_ENRICHMENT = """
type: llm_assets.components.Enrichment
attributes:
  name: task_{number:03}
  documents: {documents}
  provider: {provider}
  model_name: {model}
  prompt: prompt.md
  output:
    sentiment: {{type: string, enum: [{sentiments}]}}
    summary: {{type: string}}
  nightly: "02:00"
"""


def measure_loading(folder: Path, runs: int, *, enrichments: int = ENRICHMENTS) -> dict[str, float]:
    """Seconds with and without enrichments, and what is between them: medians over the runs."""
    with TemporaryDirectory(prefix="scratch-", dir=folder) as name:
        full, empty = Path(name, "full"), Path(name, "empty")
        write_project(full, enrichments)
        write_project(empty, 0)
        seconds = [(_load_s(full, 3 * enrichments + 1), _load_s(empty, 0)) for _ in range(runs)]
    with_them, without = (median(each) for each in zip(*seconds, strict=True))
    return {"load_s": with_them, "load_empty_s": without, "load_over_empty_s": with_them - without}


def write_project(folder: Path, enrichments: int, *, every_seconds: int = 30) -> None:
    """A project that declares so many enrichments, by turns of each provider, of one table of documents."""
    defs = folder / "bench_project" / "defs"
    defs.mkdir(parents=True)
    for package in (defs, defs.parent):
        (package / "__init__.py").touch()
    (folder / "pyproject.toml").write_text(_PROJECT)
    (defs.parent / "definitions.py").write_text(_DEFINITIONS)
    if enrichments:
        _declare(defs / DOCUMENTS, _DOCUMENTS)
        _declare(defs / "completion", _COMPLETION.format(every_seconds=every_seconds))
    for number in range(enrichments):
        provider = PROVIDERS[number % len(PROVIDERS)]
        named = {"number": number, "provider": provider, "model": MODELS[provider]}
        task = defs / f"task_{number:03}"
        _declare(task, _ENRICHMENT.format(documents=DOCUMENTS, sentiments=", ".join(SENTIMENTS), **named))
        (task / "prompt.md").write_text(f"system:\n{SYSTEM}\n\nuser:\n{{{{ text }}}}\n")


def _declare(folder: Path, declaration: str) -> None:
    folder.mkdir()
    (folder / "defs.yaml").write_text(declaration)


def _load_s(project: Path, assets: int) -> float:
    begun = time.perf_counter()
    command = [sys.executable, "-m", "bench.loading", str(project)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=_SECONDS_MAX, check=True)  # noqa: S603
    seconds = time.perf_counter() - begun
    if int(done.stdout) != assets:
        raise RuntimeError(f"loaded {int(done.stdout)} assets, expected {assets}")
    return seconds


def main(project: str) -> None:
    """Load a project as its code server does, and print how many assets it has."""
    sys.path.insert(0, project)
    defs: dg.Definitions = import_module("bench_project.definitions").defs
    repository = defs.get_repository_def()
    repository.load_all_definitions()
    sys.stdout.write(f"{len(repository.assets_defs_by_key)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
