"""The product on hosts with a long name, and with policies that restrict, block or record PowerShell."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.winhost.presence import require
from tests.winhost.tests.product import Windows, windows
from vmproxy.errors import Forbidden, RemoteFailed
from vmproxy.image import Download

pytestmark = pytest.mark.winhost


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Windows]:
    require()
    with windows(tmp_path) as running:
        yield running


def test_a_host_whose_name_is_too_long_for_netbios_gets_its_vm(tmp_path: Path) -> None:
    require()
    with windows(tmp_path, name="FACTORY-HYPERV-01") as world:
        assert world.run() == ["create", "add"]
        assert world.run() == []
        assert world.run(cpus=4) == ["reconfigure"]
        with world.place() as place:
            facts = place.drivers.carrier.examine()
        assert [name for name, fact in facts.items() if "error" in fact] == []
        world.destroy()


def test_a_host_that_denies_localhost_is_asked_by_its_name(world: Windows) -> None:
    world.state.denies_localhost = True
    assert world.run() == ["create", "add"]
    world.destroy()


def test_a_restricted_language_mode_is_named(world: Windows) -> None:
    world.winhost.environment["WINPS_LANGUAGE_MODE"] = "ConstrainedLanguage"
    with pytest.raises(Forbidden, match="it is in ConstrainedLanguage mode") as caught:
        world.run()
    assert "application control policy" in str(caught.value.hint)


@pytest.mark.parametrize("word", ["OpenStandardInput", "Get-ThisComputer"])
def test_a_virus_scanner_that_blocks_a_script_is_named(world: Windows, word: str) -> None:
    world.winhost.environment["WINPS_BLOCKED"] = word
    with pytest.raises(RemoteFailed) as caught:
        world.run()
    assert "virus scanner" in str(caught.value.hint)


def test_nothing_secret_is_in_what_the_host_records_of_scripts_and_parameters(
    world: Windows, tmp_path: Path
) -> None:
    events = tmp_path / "events"
    world.winhost.environment["WINPS_EVENTS"] = str(events)
    world.download = Download("https://127.0.0.1:1/image.vhdx.gz?signature=s3cret", "c" * 64)
    world.run(starts=False)
    seen = events.read_text()
    assert "ConvertFrom-Json" in seen
    seed = base64.b64encode(b"seed" * 512).decode()
    assert [word for word in ("s3cret", seed[:60], "seedseed") if word in seen] == []
