"""What runs side by side, and what the closing lines say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interrupted import clear_up
from tests.winhost.presence import closing_line

WINHOST = Path(__file__).parent / "winhost"
STARTED = time.time()
_INTERRUPTED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The emulated host's tests share namespaces: they stay together."""
    for item in items:
        if WINHOST in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("winhost"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Last of all, right above pytest's own closing line."""
    yield
    line = closing_line(terminalreporter.getreports("skipped"))
    if line is not None:
        terminalreporter.write_line(line, red=True, bold=True)


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
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_AtOnce(reporter))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_INTERRUPTED] = exitstatus == pytest.ExitCode.INTERRUPTED


def pytest_unconfigure(config: pytest.Config) -> None:
    """In the run itself, when its workers are gone."""
    if config.stash.get(_INTERRUPTED, False) and not hasattr(config, "workerinput"):
        clear_up(STARTED)
