"""What every test gets: a home of its own, and a way to say what it needs that may not be on this machine."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

REQUIRED_VARIABLE = "IKV_TEST_REQUIRE"
"""Parts, separated by commas, whose absence fails a test instead of skipping it: what CI is meant to have."""

MARKER = (
    "requires_part(name, *, available, how): skip this test where a part of the machine is missing; see tests/conftest"
)


class MissingPart(pytest.skip.Exception):
    """A test was skipped because of a part that is not here."""

    def __init__(self, name: str, how: str) -> None:
        super().__init__(f"{name} is not available; {how}")
        self.name = name
        self.how = how


def require_part(name: str, *, available: bool, how: str) -> None:
    """Go on if the part is available; otherwise skip, or fail where it was promised.

    `how` says how to get it: a command, if there is one.
    """
    if available:
        return
    if name in os.environ.get(REQUIRED_VARIABLE, "").replace(" ", "").split(","):
        _fail(f"{name} is required here ({REQUIRED_VARIABLE}) and not available; {how}")
    raise MissingPart(name, how)


def _fail(reason: str) -> NoReturn:
    pytest.fail(reason, pytrace=False)


@pytest.fixture(scope="session")
def requires_part() -> Callable[..., None]:
    """`requires_part("kafka", available=..., how="make kafka")`, for fixtures that find out by trying."""
    return require_part


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> str:
    """host:port of a Kafka broker, one for all processes of this run; see services/kafka_broker.py."""
    given = os.environ.get("IKV_TEST_KAFKA")
    if given:
        return given
    broker = load_service("kafka_broker")
    # Of several processes of pytest-xdist each has a directory below the common one, and one parent.
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if parallel else base) / "kafka"
    try:
        address: str = broker.shared(directory, os.getppid() if parallel else os.getpid())
    except broker.NoBroker as exc:
        require_part("kafka", available=False, how=f"{exc}; {broker.HOW}")
        raise
    return address


@pytest.fixture(scope="session")
def kafka_brokers() -> Iterator[Callable[..., Any]]:
    """`kafka_brokers(directory)`: a broker of the test's own, to be started, killed and frozen; ends with the tests."""
    module = load_service("kafka_broker")
    made: list[Any] = []

    def make(directory: Path, **settings: str) -> Any:
        try:
            jars = module.fetch(module.cache())
        except module.NoBroker as exc:
            require_part("kafka", available=False, how=f"{exc}; {module.HOW}")
            raise
        made.append(module.Broker(jars, directory, settings))
        return made[-1]

    yield make
    for broker in made:
        broker.kill()


@pytest.fixture(scope="module")
def broker(kafka_brokers: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running one for the tests of a file."""
    broker = kafka_brokers(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.kill()


def load_service(name: str) -> Any:
    """A module of services/, which is no package."""
    if name in sys.modules:
        return sys.modules[name]
    path = Path(__file__).parent / "services" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _private_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores, replicas and settings of the person who runs the tests are neither read nor written."""
    for variable in [name for name in os.environ if name.startswith("IKV_") and name != REQUIRED_VARIABLE]:
        monkeypatch.delenv(variable)
    home = tmp_path / "h"
    monkeypatch.setenv("IKV_HOME", str(home / "ikv"))
    monkeypatch.setenv("HOME", str(home))
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)


# -- what did not run --------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    # Where a shell or nohup starts this in the background, these are ignored, and would be in every process of a test.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    config.addinivalue_line("markers", MARKER)
    # A slow machine is no finding.
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("requires_part"):
        require_part(*mark.args, **mark.kwargs)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, pytest.TestReport, Any]:
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, MissingPart):
        report.user_properties.append(("missing part", (call.excinfo.value.name, call.excinfo.value.how)))
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost, so that these are the last lines
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    yield
    for line in _not_run(terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line, yellow=True)


def _not_run(skipped: list[pytest.TestReport | pytest.CollectReport]) -> list[str]:
    """One line for each missing part, then one for each other reason."""
    parts: Counter[tuple[str, str]] = Counter()
    others: Counter[str] = Counter()
    for report in skipped:
        missing = dict(getattr(report, "user_properties", ())).get("missing part")
        if missing is not None:
            name, how = missing  # a list where it came from another process
            parts[name, how] += 1
        else:
            others[_reason(report)] += 1
    lines = [f"NOT RUN: {name} ({_tests(count)}): {how}" for (name, how), count in sorted(parts.items())]
    return lines + [f"NOT RUN: {_tests(count)}: {reason}" for reason, count in sorted(others.items())]


def _tests(count: int) -> str:
    return f"{count} test{'' if count == 1 else 's'}"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")
