"""What runs side by side, and what the closing lines say."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hypervisors, names
from tests.interrupted import clear_up
from tests.winhost.presence import closing_line

WINHOST = Path(__file__).parent / "winhost"
STARTED = time.time()
_INTERRUPTED = pytest.StashKey[bool]()


_FIRST = ("qemu-vm", "hyperv-vm", "hyperv-container", "qemu-container", "tests/integration", WINHOST.name)
"""Parts in the order in which they begin; the first whose name fits is an item's: the last ones are short."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """A file of the emulated host's tests shares its fixtures: in one worker they are made once.

    The order is made last: pytest itself puts tests with the same kind of host together.
    """
    for item in items:
        if WINHOST in item.path.parents:
            item.add_marker(pytest.mark.xdist_group(f"winhost/{item.path.stem}"))
    yield
    size = Counter(map(_file, items))
    items.sort(key=lambda item: (_rank(item), _after(item, size[_file(item)])))


def _after(item: pytest.Item, size: int) -> int:
    """Within its part: the longest file first; a VM goes from file to file in their own order."""
    return 0 if part(item.nodeid).endswith("-vm") else -size


def _rank(item: pytest.Item) -> int:
    name = part(item.nodeid)
    return next((at for at, one in enumerate(_FIRST) if one in name), len(_FIRST))


def _file(item: pytest.Item) -> tuple[str, Path]:
    """Of which part, and which file."""
    return part(item.nodeid), item.path


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Last of all, right above pytest's own closing line."""
    yield
    for spent in _where_the_minutes_went(terminalreporter):
        terminalreporter.write_line(spent)
    booted = ", ".join(f"{count} {what}" for what, count in hypervisors.booted().items())
    terminalreporter.write_line(f"booted: {booted or 'nothing'}")
    line = closing_line(terminalreporter.getreports("skipped"))
    if line is not None:
        terminalreporter.write_line(line, red=True, bold=True)


def _where_the_minutes_went(reporter: pytest.TerminalReporter) -> list[str]:
    """Of all workers together, by part; setting up and tearing down count."""
    seconds: dict[str, float] = defaultdict(float)
    tests: dict[str, set[str]] = defaultdict(set)
    for reports in reporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[part(report.nodeid)] += report.duration
                tests[part(report.nodeid)].add(report.nodeid)
    ordered = sorted(seconds, key=lambda name: -seconds[name])
    return [f"{seconds[name] / 60:6.1f} min  {name} ({len(tests[name])} tests)" for name in ordered]


def part(nodeid: str) -> str:
    """tests/unit, tests/winhost, …; of the integration tests the kind of host and what carries its VM."""
    folder = "/".join(nodeid.split("/")[:2])
    parameters = nodeid.partition("[")[2].split("@")[0]
    kinds = [f"{kind}-{tier}" for kind in ("qemu", "hyperv") for tier in ("container", "vm")]
    return f"{folder} {next((kind for kind in kinds if kind in parameters), '')}".strip()


class _AtOnce:
    """Tells a failure when it happens: a run that is cut off has said why all the same."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.failed:
            return
        minute = (time.time() - STARTED) / 60
        title = f"{report.nodeid}: {report.when} failed after {report.duration:.0f} s, at minute {minute:.1f}"
        self._reporter.write_sep("-", title, red=True)
        self._reporter.write_line(report.longreprtext)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before the workers are started, which inherit the environment."""
    if _is_worker(config):
        return
    names.begin()
    hypervisors.begin()
    config.add_cleanup(hypervisors.end)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        config.pluginmanager.register(_AtOnce(reporter))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_INTERRUPTED] = exitstatus == pytest.ExitCode.INTERRUPTED


def pytest_unconfigure(config: pytest.Config) -> None:
    """In the run itself, when its workers are gone."""
    if config.stash.get(_INTERRUPTED, False) and not _is_worker(config):
        clear_up()


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")
