"""A platform, opened: the store and its ledger belong together."""

from dataclasses import replace
from pathlib import Path

import pytest

from llm_assets.errors import LedgerError
from llm_assets.platform import Platform, Settings
from llm_assets.providers import Credentials
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import labels, run


def settings(root: Path, ledger_url: str) -> Settings:
    return Settings(str(root), ledger_url, {})


def test_a_store_and_its_ledger_open_again_and_again(tmp_path: Path, ledger_url: str) -> None:
    for _ in range(3):
        Platform.open(settings(tmp_path / "store", ledger_url)).close()


def test_a_store_whose_ledger_was_deleted_is_not_opened_with_a_new_one(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    url = f"sqlite:///{file}"
    Platform.open(settings(tmp_path / "store", url)).close()
    kept = file.read_bytes()
    file.unlink()
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"belongs to the ledger \w+, and sqlite:.* is the ledger .* Restore"):
            Platform.open(settings(tmp_path / "store", url))
    file.write_bytes(kept)
    Platform.open(settings(tmp_path / "store", url)).close()


def test_a_ledger_may_have_a_new_store(tmp_path: Path, ledger_url: str) -> None:
    for store in ("first", "second"):
        Platform.open(settings(tmp_path / store, ledger_url)).close()


def test_the_refusal_does_not_tell_the_databases_password(tmp_path: Path, ledger_url: str) -> None:
    Platform.open(settings(tmp_path / "store", f"sqlite:///{tmp_path / 'other.db'}")).close()
    url = ledger_url.replace("postgres:@", "postgres:planted-password@")
    with pytest.raises(LedgerError) as refusal:
        Platform.open(settings(tmp_path / "store", url))
    assert "planted-password" not in str(refusal.value)


@pytest.mark.parametrize("name", ["a?b", "ro%20ot", "[2026] reviews", "a b", "ü"])
def test_a_root_of_any_name_holds_its_own_ledger(tmp_path: Path, emulator: Emulator, name: str) -> None:
    found = Settings.from_environment({"LLM_ASSETS_ROOT": str(tmp_path / name)})
    opened = Platform.open(replace(found, credentials={"openai": Credentials("k", f"{emulator.url}/v1")}))
    run(opened, labels("openai"), ["good"])
    opened.close()
    assert (tmp_path / name / "ledger.db").is_file()
    assert [path.name for path in tmp_path.iterdir() if path.name != "emulator"] == [name]
