"""What every test shares: markers for what a machine must have, and CI's rule about skipping.

- `@pytest.mark.needs("iperf3", "socat")`: skipped where one of the commands is missing.
- `@pytest.mark.root`: skipped where we are not root.
- Everything in tests/system carries `system`.
- `@pytest.mark.alone`: it measures, keeps to real time, or looks at what all of the machine share,
  so `make test` runs it by itself, after the others.
- With CI=true a skip counts as a failure, so that no test falls silently out of the suite. A test
  that CI itself cannot run carries `@pytest.mark.ci_may_skip("why")`.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Two cores shared by all workers: a slow example says nothing about our code.
settings.register_profile(
    "packetcloud", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("packetcloud")

# A shell that runs the tests in the background lets them ignore Ctrl-C, and every child with them;
# tests that interrupt a child need it to listen.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SYSTEM_TESTS = Path(__file__).parent / "system"
DAEMON_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
"""nginx and haproxy are in sbin, which is not on every user's path."""


KILLS = {
    "test_router_kills.py": "--router-kills",
    "test_host_kills.py": "--host-kills",
    "test_rule_kills.py": "--rule-kills",
    "test_domain_kills.py": "--domain-kills",
    "test_domain_races.py": "--domain-rounds",
}
LIMIT_S = 120
KILL_LIMIT_S = 20
"""How long one kill may take, with all that follows from it; a few hundred take as much more."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--router-kills", type=int, default=8, help="SIGKILLs of a durable router (up to 200)"
    )
    parser.addoption(
        "--host-kills", type=int, default=6, help="SIGKILLs of each of two hosts (up to 200)"
    )
    parser.addoption(
        "--rule-kills", type=int, default=8, help="SIGKILLs of a keeper of rules (up to 200)"
    )
    parser.addoption(
        "--domain-kills", type=int, default=2, help="SIGKILLs of a domain controller's writer"
    )
    parser.addoption(
        "--domain-rounds", type=int, default=10, help="rounds of 64 clients racing for 50 places"
    )
    parser.addoption(
        "--domain-records", type=int, default=9_000, help="usage records, a tenth of them twice"
    )
    parser.addoption(
        "--controller-kills",
        choices=("few", "commands", "all"),
        default="few",
        help="SIGKILLs of a cloudlet controller: before every third command, each one, "
        "after each answer too",
    )
    parser.addoption(
        "--fault-turns", type=int, default=3, help="turns in which a fault of a VI shows to be harm"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(SYSTEM_TESTS):
            item.add_marker(pytest.mark.system)
        option = KILLS.get(item.path.name)
        if option is not None and item.get_closest_marker("timeout") is None:
            kills_count = item.config.getoption(option)
            item.add_marker(pytest.mark.timeout(LIMIT_S + kills_count * KILL_LIMIT_S))


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to begin where groups have no effect: tests that share this machine's LXD would meet.

    pytest-xdist 3.8 names a group in a field of items that pytest has no more from 9.1 on.
    """
    if config.getoption("dist", "no") == "loadgroup" and not hasattr(pytest.Item, "_nodeid"):
        raise pytest.UsageError(
            f"pytest {pytest.__version__} and this pytest-xdist keep no groups of tests together: "
            f"pip install -e '.[dev]' brings versions that do"
        )


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Look for garbage no more in what stays to the end: the tests, and all that they import."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
    for marker in item.iter_markers("needs"):
        for command in marker.args:
            if shutil.which(command, path=DAEMON_PATH) is None:
                pytest.skip(f"needs the command {command}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected = hasattr(report, "wasxfail") or item.get_closest_marker("ci_may_skip")
    if report.skipped and not expected:
        _fail_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _fail_in_ci(report)
    return report


def _fail_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI", "").lower() not in ("1", "true", "yes"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: CI must run this test, but it was skipped. {reason}"
