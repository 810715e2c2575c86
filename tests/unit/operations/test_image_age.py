"""How old the image is that a VM was made of, where a person looks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.memory import VM, MemoryArtifacts, Product, made
from vmproxy.hosts.memory import MemoryWorld
from vmproxy.image.age import OLD_DAYS
from vmproxy.operations.doctor import Finding, doctor_host
from vmproxy.operations.status import status_host
from vmproxy.util.events import Reporter

QUIET = Reporter(lambda _host, _event: None)


def finding(product: Product) -> Finding:
    (found,) = [
        item
        for item in doctor_host(product.site(), product.topology.members[0], QUIET)
        if item.check == "image"
    ]
    return found


def aged(days: int) -> Product:
    product = Product(made())
    day = str(datetime.now(UTC).date() - timedelta(days=days))
    marker = product.world.vms[VM].marker
    assert marker is not None
    object.__setattr__(marker, "made", day)
    return product


@pytest.mark.parametrize(("days", "ok"), [(0, True), (OLD_DAYS - 1, True), (OLD_DAYS, False)])
def test_from_some_age_on_doctor_names_the_next_steps(days: int, ok: bool) -> None:
    found = finding(aged(days))
    assert found.ok is ok
    assert str(days) in found.detail
    assert ok or ("image build --again" in found.next_step and "--new-image" in found.next_step)


def test_an_image_that_is_not_here_is_no_problem_before_the_vm_is_made() -> None:
    found = finding(Product(MemoryWorld(), artifacts=MemoryArtifacts(cache=False)))
    assert (found.ok, found.detail) == (True, "built")


def test_status_has_the_age_without_a_cache() -> None:
    product = aged(12)
    product.artifacts = MemoryArtifacts(cache=False)
    assert status_host(product.site(), product.topology.members[0], QUIET).vm.image_age == 12
    assert product.artifacts.got == []


def test_a_vm_of_an_older_vmproxy_has_no_known_age() -> None:
    product = Product(made())
    marker = product.world.vms[VM].marker
    assert marker is not None
    for name in ("made", "recipe"):
        object.__setattr__(marker, name, "")
    assert finding(product).ok
    assert product.plan().in_sync
    product.artifacts = MemoryArtifacts(cache=False)
    assert product.plan().in_sync
