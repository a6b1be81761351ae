"""What holds for every test: no network, and no test that is skipped without anybody having written down why."""

import importlib.util
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")

NO_NETWORK = Path(__file__).with_name("no_network")

ALLOWED_SKIPS: dict[str, str] = {}
"""Tests that may be skipped or fail as expected: ``file.py::test`` to the reason. Any other fails the run."""

# The guard holds in this process, and through the environment in every one that a test starts.
guard = importlib.util.spec_from_file_location("no_network", NO_NETWORK / "sitecustomize.py")
assert guard is not None and guard.loader is not None
guard.loader.exec_module(importlib.util.module_from_spec(guard))
os.environ["PYTHONPATH"] = os.pathsep.join([str(NO_NETWORK), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["NO_COLOR"] = "1"


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    test = report.nodeid.split("[")[0].rpartition("/")[2]
    if report.skipped and test not in ALLOWED_SKIPS:
        report.outcome = "failed"
        vars(report).pop("wasxfail", None)  # pytest would count it as no failure
        report.longrepr = f"{test} was skipped, which ALLOWED_SKIPS of conftest.py does not allow: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report
