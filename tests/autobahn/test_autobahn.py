"""What the Autobahn suite says of the class, in the cases that are quick; `make autobahn` runs all of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.autobahn.environment import BUILD_SECONDS, NoPythonError, find_python, ready
from tests.autobahn.suite import MOST_NON_STRICT, PARTS, QUICK, Report, run

WITHIN = 120.0


@pytest.mark.timeout(3 * BUILD_SECONDS + WITHIN)
def test_the_protocol_is_kept() -> None:
    try:
        wstest = ready()
    except NoPythonError as error:
        if os.environ.get("CI"):
            pytest.fail(f"in CI this is not skipped: {error}")
        pytest.skip(str(error))
    report = run(wstest, QUICK, jobs=1, within=WITHIN)
    print(report)  # noqa: T201 - shown where it fails
    assert not report.problems


def test_what_must_not_be_is_found() -> None:
    good = {f"1.1.{number}": ("OK", "OK") for number in range(90)}
    slack = {f"2.{number}": ("NON-STRICT", "OK") for number in range(MOST_NON_STRICT)}
    fine = {**good, **slack, "7.1.6": ("INFORMATIONAL", "INFORMATIONAL")}
    assert Report(len(fine), fine).problems == []
    assert Report(len(fine) + 1, fine).problems == [f"{len(fine)} cases were run, not {len(fine) + 1}"]
    for behaviour, close in (("FAILED", "OK"), ("OK", "UNCLEAN"), ("OK", "WRONG CODE"), ("UNIMPLEMENTED", "OK")):
        report = Report(len(fine), {**fine, "1.1.10": (behaviour, close)})
        assert report.problems == [f"1.1.10: {behaviour}, closed: {close}"]
        assert report.problems[0] in str(report)
    assert len(Report(len(fine), {**fine, "1.1.1": ("NON-STRICT", "OK")}).problems) == 1


def test_every_case_is_in_a_part() -> None:
    assert sum(PARTS.values()) == 517


def test_without_a_python_for_it_one_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    too_new = tmp_path / "python2.7"
    too_new.write_text("#!/bin/sh\necho 3.11\n")
    too_new.chmod(0o755)
    for name in ("PATH", "HOME", "PYENV_ROOT"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("PYTHON27", raising=False)
    with pytest.raises(NoPythonError, match=r"pyenv install 2\.7"):
        find_python()
