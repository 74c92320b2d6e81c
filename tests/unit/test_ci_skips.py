"""CI's rule about skipped tests, tried on small suites of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parents[1] / "conftest.py"
MARKERS = "\n    ".join(["root: x", "needs(*commands): x", "ci_may_skip(reason): x", "system: x"])


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makeini(f"[pytest]\nmarkers =\n    {MARKERS}\n")
    pytester.makepyfile(
        """
        import pytest

        def test_passes(): pass

        @pytest.mark.needs("no-such-command")
        def test_needs_a_command(): pass

        def test_skips_itself(): pytest.skip("no such thing here")

        @pytest.mark.ci_may_skip("CI has no such hardware")
        @pytest.mark.needs("no-such-command")
        def test_allowed_to_skip(): pass

        @pytest.mark.xfail(reason="known")
        def test_expected_to_fail(): assert False
        """
    )
    monkeypatch.delenv("CI", raising=False)
    # What else is installed beside pytest is slow to begin, three times over.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return pytester


def test_a_laptop_skips_with_the_reason(suite: pytest.Pytester) -> None:
    """Without CI a missing command skips the test and names what is missing."""
    result = suite.runpytest_inprocess("-rs")
    result.assert_outcomes(passed=1, skipped=3, xfailed=1)
    result.stdout.fnmatch_lines(["*needs the command no-such-command*"])
    assert result.ret == pytest.ExitCode.OK


@pytest.mark.parametrize("arguments", [(), ("-p", "xdist.plugin", "-n", "2")])
def test_ci_fails_on_a_skip_and_lists_it(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """With CI=true each skip is a failure with its reason; only marked ones may skip."""
    monkeypatch.setenv("CI", "true")
    result = suite.runpytest_subprocess(*arguments)
    result.assert_outcomes(passed=1, skipped=1, xfailed=1, errors=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*test_needs_a_command: CI must run this test*needs the command no-such-command*",
            "*test_skips_itself: CI must run this test*no such thing here*",
        ]
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_ci_fails_on_a_module_skipped_as_a_whole(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`importorskip` at module level cannot hide a whole file from CI."""
    monkeypatch.setenv("CI", "true")
    suite.makepyfile(test_other="import pytest\npytest.importorskip('no_such_module')\n")
    result = suite.runpytest_subprocess("test_other.py")
    result.stdout.fnmatch_lines(["*test_other.py: CI must run this test*no_such_module*"])
    assert result.ret != pytest.ExitCode.OK
