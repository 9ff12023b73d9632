"""What `ikv conformance` asks of the process that runs the tests, and what that tells it, line by line.

Lines survive a process that an engine takes down with it.
"""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

from ikvcore.testing.conformance._classes import Conformance
from ikvcore.testing.conformance.verdict import Claim, Expected, Outcome, Subject

__all__ = ["VARIABLE", "Plan", "Told"]

VARIABLE: Final = "IKV_CONFORMANCE_PLAN"
"""Names the plan's file to the process that runs the tests."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run, and where that is told."""

    kind: str
    name: str
    options: Mapping[str, Any]
    tiers: tuple[str, ...]
    seed: int
    records: str
    """The file of lines."""

    @classmethod
    def given(cls, environment: Mapping[str, str]) -> Plan | None:
        """The plan that the environment names, if it names one."""
        path = environment.get(VARIABLE)
        if path is None:
            return None
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(**{**data, "tiers": tuple(data["tiers"])})

    def save(self, path: Path) -> None:
        """Write it to where the environment will name it."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    def concerns(self, cls: type[Conformance]) -> bool:
        """Whether a class certifies what is asked for."""
        return (cls.kind, cls.name) == (self.kind, self.name)

    def apply(self, cls: type[Conformance]) -> None:
        """Have an author's class run what is asked for here."""
        cls.tiers, cls.seed = self.tiers, self.seed
        # Not a copy: what the class names may be filled by a fixture later, as with the port of a server.
        cls.options = ChainMap(dict(self.options), cast("dict[str, Any]", cls.options))

    def tell_subject(self, subject: Subject, declared: Mapping[str, Any]) -> None:
        """What is expected."""
        self._tell({"subject": asdict(subject), "declared": dict(declared)})

    def tell_begin(self, test: str) -> None:
        """A test begins."""
        self._tell({"begins": test})

    def tell_outcome(self, test: str, outcome: Outcome) -> None:
        """A test has ended."""
        self._tell({"ends": test, "outcome": asdict(outcome)})

    def _tell(self, line: Mapping[str, Any]) -> None:
        with Path(self.records).open("a", encoding="utf-8") as records:
            records.write(json.dumps(line) + "\n")


class Told:
    """What such a process has told."""

    def __init__(self, records: Path) -> None:
        self.subject: Subject | None = None
        self.declared: dict[str, Any] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.doing = ""
        """The test that had begun, and did not end."""
        text = records.read_text(encoding="utf-8") if records.exists() else ""
        for line in text.splitlines():
            self._take(json.loads(line))

    def _take(self, line: Mapping[str, Any]) -> None:
        if "subject" in line:
            self.subject, self.declared = _subject(line["subject"]), line["declared"]
        elif "begins" in line:
            self.doing = line["begins"]
        else:
            self.outcomes[line["ends"]] = Outcome(**line["outcome"])
            self.doing = ""


def _subject(data: dict[str, Any]) -> Subject:
    claims = [Claim(what=each["what"], witnesses=tuple(each["witnesses"])) for each in data.pop("claims")]
    return Subject(expected=[Expected(**each) for each in data.pop("expected")], claims=claims, **data)
