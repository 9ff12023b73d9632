"""The kit's part in a run of pytest: it gives classes their tests, follows what becomes of them, and judges."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Any, Final

import pytest

from ikvcore.testing._announcing import kit_version, requirement
from ikvcore.testing.conformance._classes import Conformance
from ikvcore.testing.conformance._plan import Plan
from ikvcore.testing.conformance._table import lines
from ikvcore.testing.conformance.verdict import Expected, Outcome, Subject, Verdict, judge

__all__ = ["prepare"]

_NAME: Final = "ikv-conformance"


def prepare(config: pytest.Config, obj: type) -> None:
    """Give a subclass of Conformance that names its plugin the tests of its tiers; leave all else alone."""
    if not (issubclass(obj, Conformance) and hasattr(obj, "name")):
        return
    following = config.pluginmanager.get_plugin(_NAME)
    if following is None:
        following = Following(Plan.given(os.environ))
        # A part of the tests, as a process of pytest-xdist has, is nothing to judge.
        if not hasattr(config, "workerinput"):
            config.pluginmanager.register(following, _NAME)
    following.take(obj)


class _Followed:
    """One class, and what is expected of it."""

    def __init__(self, cls: type[Conformance]) -> None:
        self.cls = cls
        self.problems = [
            f"{cls.__name__}.{name} is the author's own, in the place of the kit's: state a deviation instead"
            for name in cls.overridden()
        ]
        cls.expand()
        self._excuses = cls.excuses()
        self._nodes: dict[str, str] = {}  # to Class::test
        self._tiers = {getattr(cls, part.name): (tier.name, part) for tier, part in cls.parts()}
        self._tests = {f"{part.name}::{name}": test for _, part in cls.parts() for name, test in part.tests().items()}
        self.kit = kit_version()
        self.expected: dict[str, Expected] = {}

    def owns(self, item: pytest.Item) -> bool:
        return getattr(item, "cls", None) in self._tiers

    def take(self, item: pytest.Item) -> None:
        """An item of one of its nested classes."""
        tier, part = self._tiers[item.cls]  # type: ignore[attr-defined]  # it has one, see `owns`
        test = self._expect(f"{part.name}::{item.name}", tier)
        self._nodes[item.nodeid] = test.id
        function = getattr(item, "function", None)
        if not getattr(function, "__module__", "").startswith("ikvcore.testing."):
            self.problems.append(f"{test.id} is not the kit's test")
        reason = test.stated(self.cls.deviations)
        if test.announced(self.kit):
            item.add_marker(pytest.mark.xfail(reason=f"required from {test.required_from}", strict=False))
        elif reason is not None:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    def complete(self) -> None:
        """Expect the tests too of which pytest has found nothing."""
        found = {test.place for test in self.expected.values()}
        tiers = {part.name: tier for tier, part in self._tiers.values()}
        for place in self._tests:
            if place not in found:
                self._expect(place, tiers[place.partition("::")[0]])

    def _expect(self, test_id: str, tier: str) -> Expected:
        place = test_id.partition("[")[0]
        test = Expected(
            id=test_id,
            tier=tier,
            excuse=self._excuses.get(place, ""),
            required_from=requirement(self._tests.get(place)),
        )
        self.expected[test_id] = test
        return test

    def announces(self, test_id: str) -> bool:
        """Whether a test that is expected is not required yet."""
        return test_id in self.expected and self.expected[test_id].announced(self.kit)

    def test_of(self, node: str) -> str | None:
        return self._nodes.get(node)

    def subject(self) -> Subject:
        cls = self.cls
        return Subject(
            kind=cls.kind,
            name=cls.name,
            kit=self.kit,
            expected=list(self.expected.values()),
            claims=cls.claims(),
            deviations=dict(cls.deviations),
            places=cls.places(),
            problems=self.problems,
        )


class Following:
    """A plugin of pytest's, registered once a class has been found that certifies something."""

    def __init__(self, plan: Plan | None) -> None:
        self._plan = plan
        self._followed: list[_Followed] = []
        self._outcomes: dict[str, Outcome] = {}  # by node
        self._verdicts: list[Verdict] = []

    def take(self, cls: type[Conformance]) -> None:
        """Follow a class, if it is what is asked for. pytest may come to it twice."""
        if any(each.cls is cls for each in self._followed):
            return
        if self._plan is not None:
            if self._followed or not self._plan.concerns(cls):
                return
            self._plan.apply(cls)
        self._followed.append(_Followed(cls))

    @pytest.hookimpl(tryfirst=True)  # before anybody deselects
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for each in self._followed:
                if each.owns(item):
                    each.take(item)

    def pytest_collection_finish(self) -> None:
        for each in self._followed:
            each.complete()
            if self._plan is not None:
                self._plan.tell_subject(each.subject(), each.cls.declared())

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        test = self._test_of(nodeid)
        if self._plan is not None and test is not None:
            self._plan.tell_begin(test)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self._test_of(report.nodeid)
        if test is None:
            return
        announced = any(each.announces(test) for each in self._followed)
        found = merged(self._outcomes.get(report.nodeid), report, announced=announced)
        self._outcomes[report.nodeid] = found
        if report.when == "teardown" and self._plan is not None:
            self._plan.tell_outcome(test, found)

    def _test_of(self, node: str) -> str | None:
        return next((test for each in self._followed if (test := each.test_of(node)) is not None), None)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        if not session.config.option.collectonly:
            self._verdicts = list(self._judged())
            if any(not verdict.clean for verdict in self._verdicts) and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        yield

    def _judged(self) -> Iterator[Verdict]:
        for each in self._followed:
            own = {node: test for node in self._outcomes if (test := each.test_of(node)) is not None}
            yield judge(each.subject(), {test: self._outcomes[node] for node, test in own.items()})

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for verdict in self._verdicts:
            terminalreporter.section(f"conformance of {verdict.subject.kind} {verdict.subject.name}")
            for line in lines(verdict):
                terminalreporter.write_line(line)


def merged(before: Outcome | None, report: pytest.TestReport, *, announced: bool) -> Outcome:
    """The outcome of a test after one more of its phases; whatever failed once has failed.

    announced: it is marked so that its failure fails no run of pytest, and has failed all the same.
    """
    if announced and hasattr(report, "wasxfail") and report.outcome == "skipped":
        outcome, reason = "failed", report.longreprtext
    elif hasattr(report, "wasxfail") and report.outcome == "skipped":
        outcome, reason = "deviated", report.wasxfail
    elif report.outcome == "skipped":
        outcome, reason = "skipped", _reason(report)
    elif report.outcome == "passed":
        outcome, reason = "passed", ""
    else:  # failed, or run again after it had
        outcome, reason = "failed", report.longreprtext
    seconds = report.duration + (0.0 if before is None else before.seconds)
    figures: Any = dict(report.user_properties).get("conformance") or (before.figures if before is not None else None)
    if before is not None and _WORSE.index(before.outcome) > _WORSE.index(outcome):
        outcome, reason = before.outcome, before.reason
    return Outcome(outcome=outcome, reason=reason, seconds=seconds, figures=figures)


_WORSE: Final = ("passed", "skipped", "deviated", "failed")


def _reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")
