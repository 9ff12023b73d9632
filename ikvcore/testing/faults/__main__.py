"""`python -m ikvcore.testing.faults`: runs campaigns and writes their table."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from ikvcore.testing.faults.campaigns import CAMPAIGNS
from ikvcore.testing.faults.result import Result, Row, of_pair, table, write_table
from ikvcore.testing.faults.target import Pair


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 1 where something was violated."""
    given = _parser().parse_args(arguments)
    names = given.only or list(CAMPAIGNS)
    pair = Pair(backend=given.backend)
    rows: list[Row] = []
    good = True
    with tempfile.TemporaryDirectory(prefix="ikv-faults-", dir=given.directory) as place:
        os.environ["IKV_HOME"] = str(Path(place) / "home")
        for name in names:
            began = time.monotonic()
            _say(f"{name} ...")
            result = _played(name, Path(place) / name, given.seed, pair, full=given.full)
            found = [*result.rows, *(_not_run(name, reason, given.seed) for reason in result.not_run)]
            rows += [of_pair(row, pair) for row in found]
            good = good and result.good
            for line in [*result.violations[:20], *(f"NOT RUN: {reason}" for reason in result.not_run)]:
                _say(f"  {line}")
            _say(f"{name}: {'good' if result.good else 'VIOLATED'} in {time.monotonic() - began:.0f} s")
    _say("")
    _say(table(rows))
    if given.table is not None:
        write_table(given.table, rows, backend=pair.backend, command=_command(given, pair))
    return 0 if good else 1


def _command(given: argparse.Namespace, pair: Pair) -> str:
    """What makes such a table again."""
    chosen = "" if pair.is_default else pair.backend
    if given.full and not given.only:
        return f"make faults{chosen and f' BACKEND={chosen}'}"
    words = ["python -m ikvcore.testing.faults", *(["--full"] if given.full else [])]
    words += [f"--backend {chosen}"] if chosen else []
    return " ".join([*words, *(f"--only {name}" for name in given.only or ())])


def _played(name: str, directory: Path, seed: int, pair: Pair, *, full: bool) -> Result:
    """A campaign's result; one that does not come to its end, since something hung or died, is a violation too."""
    campaign = CAMPAIGNS[name]
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


def _not_run(name: str, reason: str, seed: int) -> Row:
    return Row(fault=name, times=0, happened=f"NOT RUN: {reason}", violations=0, seed=seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ikvcore.testing.faults", description=__doc__)
    parser.add_argument("--full", action="store_true", help="each fault hundreds of times")
    parser.add_argument("--only", action="append", choices=list(CAMPAIGNS), help="this campaign; may be repeated")
    parser.add_argument("--backend", default=Pair().backend, help="of the replicas; default %(default)s")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", type=Path, help="a Markdown file whose table of the backend is replaced")
    parser.add_argument("--directory", type=Path, help="where stores and mounts are made for the time")
    return parser


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
