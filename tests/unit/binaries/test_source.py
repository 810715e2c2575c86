"""The small Go module that names a program and what it is built from."""

from __future__ import annotations

from pathlib import Path

from vmproxy.binaries import FLANNEL_VERSION, source


def go_mod(folder: Path, name: str, version: str) -> list[str]:
    source._own_module(folder, name, version)
    return (folder / "go.mod").read_text().split("\n")


def test_a_program_is_required_in_the_version_that_is_asked_for(tmp_path: Path) -> None:
    lines = go_mod(tmp_path, "etcd", "v3.6.8")
    assert lines == [
        "module vmproxy.local/etcd",
        "",
        "go 1.24.0",
        "",
        "require go.etcd.io/etcd/server/v3 v3.6.8",
        "",
    ]
    assert '_ "go.etcd.io/etcd/server/v3"' in (tmp_path / "tools.go").read_text()
    assert source._own_flags("etcd", "v3.6.8") == "-s -w"


def test_a_module_may_replace_one_that_its_program_asks_for(tmp_path: Path) -> None:
    (line,) = (line for line in go_mod(tmp_path, "flanneld", FLANNEL_VERSION) if line.startswith("replace "))
    before, after = line.removeprefix("replace ").split(" => ")
    assert after == f"{before} v1.3.75"


def test_a_program_that_does_not_know_its_version_is_told(tmp_path: Path) -> None:
    flags = source._own_flags("flanneld", FLANNEL_VERSION)
    assert flags == f"-s -w -X github.com/flannel-io/flannel/pkg/version.Version={FLANNEL_VERSION}"


def test_only_a_program_with_parts_in_c_needs_its_compiler() -> None:
    programs = ("etcd", "coredns", "kube-proxy", "flanneld")
    assert [name for name in programs if source._has_c(name)] == ["flanneld"]
