"""`python -m ikvcore.testing.faults`: runs campaigns and writes their table."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from ikvcore.testing.faults.campaigns import CAMPAIGNS, Campaign
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.table import Line, lines, markdown, write_table
from ikvcore.testing.faults.target import Pair


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 1 where something was violated."""
    given = _parser().parse_args(arguments)
    pair = Pair(backend=given.backend)
    command = f"make faults{'' if pair.is_default else f' BACKEND={pair.backend}'}"
    if not given.full:
        command = f"python -m ikvcore.testing.faults --backend {pair.backend}"
    return run_campaigns(CAMPAIGNS, given, pair, of=pair.backend, command=command)


def run_campaigns(
    campaigns: Mapping[str, Campaign], given: argparse.Namespace, pair: Pair, *, of: str, command: str
) -> int:
    """Run those that were asked for, one after the other, each on a place of its own; the exit status.

    given: what `parser` parsed. of, command: see `write_table`, which is called after each of them: what a run has
    found stays found if it is ended.
    """
    found: list[Line] = []
    good = True
    with tempfile.TemporaryDirectory(prefix="ikv-faults-", dir=given.directory) as place:
        os.environ["IKV_HOME"] = str(Path(place) / "home")
        for name in given.only or campaigns:
            began = time.monotonic()
            _say(f"{name} ...")
            result = _played(campaigns[name], name, Path(place) / name, given.seed, pair, full=given.full)
            told = lines(name, result, given.seed)
            found += told
            good = good and result.good
            for line in [*result.violations[:20], *(f"NOT RUN: {reason}" for reason in result.not_run)]:
                _say(f"  {line}")
            _say(f"{name}: {'good' if result.good else 'VIOLATED'} in {time.monotonic() - began:.0f} s")
            if given.table is not None:
                write_table(given.table, told, of=of, command=command, campaigns=list(campaigns))
    _say("")
    _say(markdown(found))
    return 0 if good else 1


def _played(campaign: Campaign, name: str, directory: Path, seed: int, pair: Pair, *, full: bool) -> Result:
    """A campaign's result; one that does not come to its end, since something hung or died, is a violation too."""
    reason = campaign.why_not(pair)
    if reason:
        return Result(rows=[], not_run=[reason])
    how_often = campaign.full if full else campaign.short
    try:
        return campaign.load()(directory=directory, seed=seed, pair=pair, **how_often)
    except Exception as exc:
        traceback.print_exc()
        what = f"it did not come to its end: {type(exc).__name__}: {exc}"
        return Result(rows=[Row(fault=name, times=0, happened=what, violations=1, seed=seed)], violations=[what])


def parser(campaigns: Sequence[str]) -> argparse.ArgumentParser:
    """What `run_campaigns` takes."""
    found = argparse.ArgumentParser(description="Run campaigns of faults and write their table.")
    found.add_argument("--full", action="store_true", help="each fault as often as it is promised")
    found.add_argument("--only", action="append", choices=campaigns, help="this campaign; may be repeated")
    found.add_argument("--seed", type=int, default=1)
    found.add_argument("--table", type=Path, help="a Markdown file in whose table the campaigns' lines are replaced")
    found.add_argument("--directory", type=Path, help="where stores and mounts are made for the time")
    return found


def _parser() -> argparse.ArgumentParser:
    found = parser(list(CAMPAIGNS))
    found.prog = "python -m ikvcore.testing.faults"
    found.add_argument("--backend", default=Pair().backend, help="of the replicas; default %(default)s")
    return found


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
