from __future__ import annotations

from dataclasses import replace

import pytest

from vmproxy.errors import UsageError
from vmproxy.image.build import SUITES, recipe


@pytest.mark.parametrize("suite", SUITES)
def test_the_key_names_the_suite_and_follows_what_is_done_in_it(suite: str) -> None:
    made = recipe(suite)
    assert made.key.startswith(SUITES[suite])
    assert replace(made, setup=made.setup + "\n").key != made.key
    assert replace(made, grub=made.grub + "\n").key != made.key


@pytest.mark.parametrize("suite", SUITES)
def test_the_boot_loader_finds_the_root_that_the_kernel_is_given(suite: str) -> None:
    made = recipe(suite)
    root = made.identifier("root")
    assert f"--set=root {root}" in made.grub
    assert f"root=UUID={root} rw" in made.grub


def test_an_unknown_suite_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UsageError) as caught:
        recipe("sid")
    assert "trixie" in (caught.value.hint or "")
