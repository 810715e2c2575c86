from __future__ import annotations

import threading

import pytest

from vmproxy.engine import reconcile
from vmproxy.errors import NotReady, VmproxyError
from vmproxy.model.topology import Member, compile_site
from vmproxy.site.model import Site


def members(*names: str) -> tuple[Member, ...]:
    listed = [
        {
            "name": name,
            "qemu": {},
            "network": {"address": f"10.0.0.{number}/24", "gateway": "10.0.0.1"},
        }
        for number, name in enumerate(names, start=5)
    ]
    return compile_site(Site.model_validate({"name": "a", "hosts": listed})).members


def test_a_host_whose_file_can_not_be_read_does_not_stop_the_others() -> None:
    def work(host: object) -> str:
        if getattr(host, "name", "") == "b":
            raise FileNotFoundError(2, "No such file or directory", "/none")
        return "done"

    first, second = reconcile.for_each(members("b", "c"), work)
    assert isinstance(first, VmproxyError)
    assert "No such file or directory: /none" in first.message
    assert second == "done"


def test_the_first_of_two_waits_that_fails_ends_both() -> None:
    never = threading.Event()

    def fails() -> None:
        raise NotReady("cloud-init ended with an error")

    try:
        with pytest.raises(NotReady, match="cloud-init"):
            reconcile._side_by_side([lambda: never.wait(60) and None, fails])
    finally:
        never.set()


def test_both_waits_are_waited_for() -> None:
    done: list[int] = []
    reconcile._side_by_side([lambda: done.append(1), lambda: done.append(2)])
    assert sorted(done) == [1, 2]
    reconcile._side_by_side([])
