"""The project itself: style, types and layers hold, what is committed is clean, Dagster loads it both ways.

These are tests so that one command says everything, and none of it can be softer in CI than at a desk.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()


def check_commands() -> list[list[str]]:
    """The recipe of `make check`, line by line: what is added there is a test here."""
    recipe = MAKEFILE.partition("\ncheck:")[2].splitlines()[1:]
    lines = [line.strip() for line in recipe[: next(i for i, line in enumerate(recipe) if not line.startswith("\t"))]]
    return [line.replace("$(BIN)/", "").split() for line in lines]


def run(*command: str, **environment: str) -> str:
    """What a command of this environment prints; a failure shows all of it."""
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "VIRTUAL_ENV": str(BIN.parent), "NO_COLOR": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}"
    return done.stdout


def project_files() -> Iterator[Path]:
    """Every file that is not ignored."""
    ignored = [".git", *(line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split())]
    for folder, subfolders, files in os.walk(ROOT):
        subfolders[:] = [name for name in subfolders if not any(fnmatch(name, pattern) for pattern in ignored)]
        yield from (Path(folder, name) for name in files if not any(fnmatch(name, pattern) for pattern in ignored))


@pytest.mark.parametrize("command", check_commands(), ids=" ".join)
def test_what_make_check_runs(command: list[str]) -> None:
    run(*command)


def test_make_check_covers_style_types_and_layers() -> None:
    assert [command[0] for command in check_commands()] == ["ruff", "ruff", "mypy", "lint-imports"]
    assert PYPROJECT["tool"]["mypy"]["strict"] is True


TARGETS = ["help", "demo", "dev", "test", "bench", "month", "chaos", "cluster", "live", "check", "audit"]


@pytest.mark.parametrize("target", TARGETS)
def test_every_make_target_says_what_it_does(target: str) -> None:
    assert re.search(rf"^{target}:.* ## \S", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize(
    "name",
    [
        ".ci/run",
        ".pre-commit-config.yaml",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "constraints.txt",
        "dagster.yaml",
        "workspace.yaml",
        "llm_assets/py.typed",
    ],
)
def test_files_that_others_look_for(name: str) -> None:
    assert (ROOT / name).is_file()


def test_ci_runs_all_tests_and_nothing_softer() -> None:
    script = ROOT / ".ci/run"
    lines = script.read_text().splitlines()
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in lines
    assert lines[-1] == "make test"


def test_the_page_on_architecture_has_every_module_and_no_other() -> None:
    table = (ROOT / "docs/architecture.md").read_text().partition("\n## The modules")[2].partition("\n## ")[0]
    told = re.findall(r"`([^`]+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE)))
    there = {path.name for path in (ROOT / "llm_assets").glob("*.py")} - {"__init__.py"}
    assert sorted(told) == sorted(there | {f"{path.parent.name}/" for path in ROOT.glob("llm_assets/*/__init__.py")})


# A folder of somebody's machine, or where somebody's packages came from.
MACHINE = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users)/\w|file:///\w|/simple/\w|extra-index-url")


def test_no_file_knows_a_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in project_files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(errors="ignore").splitlines(), 1)
        if MACHINE.search(line)
    ]
    assert found == []


def constraints() -> dict[str, str]:
    """The tested version of each package."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def test_constraints_are_plain_pins() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)


def requirements() -> list[str]:
    project = PYPROJECT["project"]
    optional = [line for extra in project["optional-dependencies"].values() for line in extra]
    return [line for line in (*project["dependencies"], *optional) if Requirement(line).name != project["name"]]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: Requirement(requirement).name)
def test_the_tested_version_is_one_that_the_project_allows(requirement: str) -> None:
    required = Requirement(requirement)
    assert constraints()[canonicalize_name(required.name)] in required.specifier


def test_dg_and_the_workspace_name_the_same_code_location() -> None:
    project = PYPROJECT["tool"]["dg"]["project"]
    workspace = [line.strip() for line in (ROOT / "workspace.yaml").read_text().splitlines()]
    assert f"module_name: {project['code_location_target_module']}" in workspace
    assert f"location_name: {project['code_location_name']}" in workspace
    for module in [project["root_module"], *project["registry_modules"]]:
        import_module(module)


def warnings_in(output: str) -> list[str]:
    """Warnings, except that `dagster` commands recommend `dg`."""
    lines = [line for line in output.splitlines() if "warning" in line.lower()]
    return [line for line in lines if "SupersessionWarning" not in line]


def test_dg_loads_the_definitions_and_their_yaml(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    output = run("dg", "check", "defs", DAGSTER_HOME=str(tmp_path))
    assert "All component YAML validated successfully" in output
    assert "All definitions loaded successfully" in output
    assert warnings_in(output) == []


def test_dagster_loads_the_workspace_on_our_instance(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    output = run("dagster", "definitions", "validate", "-w", "workspace.yaml", DAGSTER_HOME=str(tmp_path))
    assert "Validation successful for code location llm_assets" in output
    assert warnings_in(output) == []
