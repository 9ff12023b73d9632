"""Processes that are killed, stopped, forked and kept busy: the short forms of what `make faults` does in full."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from ikvcore.testing.faults import children, kills, leaks, pinned, takeover, threads
from ikvcore.testing.faults.__main__ import main
from ikvcore.testing.faults.arena import Aim, Arena
from ikvcore.testing.faults.campaigns import CAMPAIGNS
from ikvcore.testing.faults.leaks import Sample, grown
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.table import BEGIN, END, Line, code, lines, versions, write_table
from ikvcore.testing.faults.target import Pair
from ikvcore.testing.faults.workload import Workload
from ikvcore.testing.faults.zygote import Zygote

SEEDED = Path(__file__).with_name("seeded.py")
WAYS = (
    "multiprocessing fork, daemon",
    "ProcessPoolExecutor of forks",
    "forkserver",
    "a daemon that opens after it has become one",
    "a daemon that had opened before",
)
"""What tests/test_forks.py does not play, call by call; `make faults` plays all the ways that there are."""

ALONE = ("damaged-logs", "hostile-bytes")


def short(name: str, directory: Path) -> Result:
    campaign = CAMPAIGNS[name]
    return campaign.load()(directory=directory / name, seed=1, pair=Pair(), **campaign.short)


@pytest.mark.parametrize("name", ["killed-writers", "killed-ingesters", "killed-readers"])
def test_kill_9_loses_invents_and_repeats_nothing(name: str, tmp_path: Path) -> None:
    short(name, tmp_path).require()


def test_a_process_that_dies_by_itself_does_not_count_as_killed(zygote: Zygote, tmp_path: Path) -> None:
    """A crash at a commit leaves files like those of a kill: nobody would miss anything in them."""
    pair = Pair().with_durability("process-crash")
    arena = Arena(zygote, tmp_path / "target", pair, Workload(seed=3), fault=f"{SEEDED}:dies_by_itself")
    with pytest.raises(RuntimeError, match=r"ingester-\d ended with -11 by itself"):
        kills._kill_ingesters(arena, 12, Aim(3, longest=0.5))


def test_an_ingester_that_is_killed_stopped_or_silent_is_replaced(tmp_path: Path) -> None:
    """Killed: within 1 s; silent: within 6 s, alive, and fenced when it goes on; stopped in a write: killed for it."""
    short("takeover", tmp_path).require()


@pytest.mark.parametrize(
    ("fault", "only", "wrong"),
    [
        ("lock_tried_once", "ingester killed", "the limit is 1 s"),
        ("silent_ones_killed", "ingester stopped (SIGSTOP) outside", "though it was only silent"),
    ],
)
def test_a_takeover_that_is_late_or_violent_would_be_found(tmp_path: Path, fault: str, only: str, wrong: str) -> None:
    path = f"{SEEDED}:{fault}"
    result = takeover.run(times=1, seed=1, directory=tmp_path / "t", pair=Pair(), only=only, fault=path)
    assert any(wrong in violation for violation in result.violations), result.violations
    assert [row.fault[: len(only)] for row in result.rows] == [only]


def test_one_that_falls_silent_in_a_write_transaction_is_waited_for(tmp_path: Path) -> None:
    """It holds the engine's lock and is not stopped: nobody may kill it, nobody can commit, and it is struck again."""
    fault, only = f"{SEEDED}:silent_inside_once", "ingester silent: one C call"
    result = takeover.run(times=1, seed=1, directory=tmp_path / "t", pair=Pair(), only=only, slack=3.0, fault=fault)
    result.require()
    assert "fell silent with the engine's write lock" in result.rows[0].happened


def test_readers_killed_in_a_read_keep_no_pages(tmp_path: Path) -> None:
    """Not even their slots: there are fewer of them than readers are killed."""
    fault = f"{SEEDED}:few_reader_slots"
    pinned.run(times=20, seed=1, directory=tmp_path / "pinned", pair=Pair(), fault=fault).require()


def test_readers_that_are_never_cleared_away_would_be_found(tmp_path: Path) -> None:
    """The same campaign, where nobody looks for dead readers: the files grow without end."""
    fault = f"{SEEDED}:killed_readers_kept"
    result = pinned.run(times=40, seed=1, directory=tmp_path / "pinned", pair=Pair(), fault=fault)
    assert any("the files grew" in violation for violation in result.violations)


def test_sixteen_threads_read_write_close_and_open(tmp_path: Path) -> None:
    short("threads", tmp_path).require()


def test_a_mount_that_is_closed_under_others_would_be_found(tmp_path: Path) -> None:
    fault = f"{SEEDED}:closed_under_others"

    def found(seed: int) -> bool:
        """In so many seconds more, since a slow machine opens and closes little in two."""
        place = tmp_path / f"threads-{seed}"
        result = threads.run(seconds=2.0 * seed, seed=seed, directory=place, pair=Pair(), fault=fault)
        return any("ShutDownError" in violation for violation in result.violations)

    assert any(map(found, range(1, 5)))


def test_a_write_that_is_lost_in_a_child_would_be_found(tmp_path: Path) -> None:
    fault = f"{SEEDED}:written_in_a_child"
    result = children.run(times=1, seed=1, directory=tmp_path / "c", pair=Pair(), ways=["fork"], fault=fault)
    assert ["a child: call 0 gave Token" in violation for violation in result.violations] == [True]


def test_children_work_or_are_refused_at_once(tmp_path: Path) -> None:
    result = children.run(times=1, seed=1, directory=tmp_path / "children", pair=Pair(), ways=WAYS)
    result.require()


@pytest.mark.requires_part(
    "gunicorn", available=importlib.util.find_spec("gunicorn") is not None, how="pip install gunicorn"
)
def test_gunicorns_workers_work_or_are_refused_at_once(tmp_path: Path) -> None:
    """Without preload, with what was opened before the fork, and with what is opened in post_fork."""
    ways = [way for way in children.WAYS if "gunicorn" in way]
    children.run(times=1, seed=1, directory=tmp_path / "children", pair=Pair(), ways=ways).require()


def test_nothing_leaks(tmp_path: Path) -> None:
    short("leaks", tmp_path).require()


@pytest.mark.parametrize("backend", ["rocksdb", "duckdb"])
def test_an_engine_whose_memory_moves_is_not_measured_while_it_works(backend: str, tmp_path: Path) -> None:
    result = leaks.run(rounds=0, seconds=1.0, seed=1, directory=tmp_path / "leaks", pair=Pair(backend=backend))
    assert not result.rows
    assert [reason.partition(":")[0] for reason in result.not_run] == ["write and read for 1 s"]


def test_a_moment_is_measured_by_as_many_samples_as_an_hour(tmp_path: Path) -> None:
    """And after as many rounds: on a machine that is too slow for them it takes longer."""
    result = leaks.run(rounds=0, seconds=0.01, seed=1, directory=tmp_path / "leaks", pair=Pair())
    result.require()
    assert result.rows[0].happened.startswith("30 rounds: ")


def test_what_goes_wrong_at_the_end_of_the_rounds_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """When reader and writer are shut down, after the last sample."""

    def rounds(*_: object) -> Iterator[None]:
        try:
            while True:
                yield
        finally:
            raise RuntimeError("the shutdown failed")

    monkeypatch.setattr(leaks, "_write_and_read", rounds)
    monkeypatch.setattr(leaks, "given", lambda _: (None, None, ["seconds", "0"]))
    with pytest.raises(RuntimeError, match="the shutdown failed"):
        leaks.main([])


def test_a_kilobyte_that_each_round_forgets_would_be_found(tmp_path: Path) -> None:
    """Already in the short form."""
    fault = f"{SEEDED}:kilobyte_kept"
    result = leaks.run(rounds=90, seconds=0.0, seed=1, directory=tmp_path / "leaks", pair=Pair(), fault=fault)
    assert any("malloc" in violation for violation in result.violations), result.rows


# -- the campaigns' own parts ------------------------------------------------------------------


FLAT = Sample(descriptors=10, threads=3, heap=5 << 20, blocks=100_000, memory=20 << 20)


@pytest.mark.parametrize(
    ("name", "words", "a_round"),
    [
        ("descriptors", "descriptors", 0.01),
        ("threads", "threads", 0.01),
        ("heap", "bytes in use by malloc", 1_024),
        ("blocks", "blocks in use by Python", 3),
        ("memory", "bytes of anonymous memory", 8_192),
    ],
)
def test_growth_is_seen(name: str, words: str, a_round: float) -> None:
    """In 2,000 rounds, of which each forgets something small."""
    samples = [FLAT._replace(**{name: getattr(FLAT, name) + int(66 * number * a_round)}) for number in range(30)]
    (found,) = grown(samples, rounds=2_000)
    assert found.startswith(f"{words} grew")


def test_what_is_flat_is_not_growth() -> None:
    """Nor is what is in use for a moment, or was in the beginning."""
    samples = [FLAT._replace(descriptors=10 + (number % 3 == 1), heap=FLAT.heap - (number < 9)) for number in range(30)]
    assert grown(samples, rounds=30) == []


def line(campaign: str, happened: str = "x") -> Line:
    return Line(campaign, "a | b", "1,000", happened, "0", "3", "1234567")


def write(document: Path, *new: Line, of: str = "lmdb", command: str = "make faults") -> str:
    write_table(document, new, of=of, command=command, campaigns=["first", "second"])
    return document.read_text()


def test_the_table_replaces_the_one_before(tmp_path: Path) -> None:
    """And nothing else of the document."""
    document = tmp_path / "reliability.md"
    begin, end = BEGIN.format(of="lmdb"), END.format(of="lmdb")
    document.write_text(f"# Before\n\n{begin}\nan old table\n{end}\n\nAfter.\n")
    for _ in range(2):
        text = write(document, line("first"))
    assert text.startswith("# Before\n")
    assert text.endswith("\nAfter.\n")
    assert text.count(f"Written by `make faults`. Versions: {versions('lmdb')}.\n") == 1
    assert text.count("| first | a \\| b | 1,000 | x | 0 | 3 | 1234567 |\n") == 1
    assert "an old table" not in text


def test_a_campaign_that_is_run_alone_replaces_its_own_lines(tmp_path: Path) -> None:
    """The others stay, in the order of the campaigns; but not those of another command, or of other versions."""
    document = tmp_path / "reliability.md"
    write(document, line("second"))
    text = write(document, line("first"), line("first", "y"))
    assert text.index("| first | a \\| b | 1,000 | x") < text.index("| first | a \\| b | 1,000 | y")
    assert text.index("| 1,000 | y") < text.index("| second | a \\| b | 1,000 | x")
    text = write(document, line("first", "z"))
    assert (text.count("| first |"), text.count("| second |")) == (1, 1)
    assert "| second |" not in write(document, line("first"), command="another")
    document.write_text(write(document, line("second"), command="another").replace("Python 3", "Python 2"))
    assert "| second |" not in write(document, line("first"), command="another")


def test_each_backend_has_a_table_of_its_own(tmp_path: Path) -> None:
    document = tmp_path / "reliability.md"
    for backend in ("lmdb", "sqlite", "lmdb"):
        text = write(document, line("first", backend), of=backend)
    assert text.index("faults of lmdb: begin") < text.index("| lmdb |") < text.index("faults of lmdb: end")
    assert text.index("faults of sqlite: begin") < text.index("| sqlite |") < text.index("faults of sqlite: end")
    assert text.count("| lmdb |") == 1


def test_a_line_names_the_commit_of_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says where it was changed since; elsewhere than in a checkout nothing is known."""
    result = Result(rows=[Row(fault="f", times=1_000, happened="x", violations=2, seed=3)], not_run=["why"])
    monkeypatch.setattr("ikvcore.testing.faults.table._git", lambda word, *_: {"rev-parse": "abc", "status": ""}[word])
    assert lines("c", result, 7) == [
        ("c", "f", "1,000", "x", "2", "3", "abc"),
        ("c", "c", "0", "NOT RUN: why", "0", "7", "abc"),
    ]
    monkeypatch.setattr("ikvcore.testing.faults.table._git", lambda word, *_: {"rev-parse": "abc"}.get(word, " M f.py"))
    assert code() == "abc+"
    monkeypatch.setattr("ikvcore.testing.faults.table._git", lambda *_: "")
    assert code() == "unknown"


def test_the_table_says_which_backend_and_what_is_not_run_on_it(tmp_path: Path) -> None:
    table = tmp_path / "reliability.md"
    given = ["--backend", "rocksdb", "--only", "damaged-logs", "--table", str(table), "--directory", str(tmp_path)]
    assert main(given) == 0
    text = table.read_text()
    assert "\nWritten by `python -m ikvcore.testing.faults --backend rocksdb`. Versions: " in text
    assert "rocksdict" in text
    assert "\n| damaged-logs | damaged-logs | 0 | NOT RUN: " in text
    assert BEGIN.format(of="rocksdb") in text


@pytest.mark.parametrize(
    ("given", "command"), [([], "make faults"), (["--backend", "sqlite"], "make faults BACKEND=sqlite")]
)
def test_a_table_says_what_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], command: str
) -> None:
    everything = {"killed-writers": CAMPAIGNS["killed-writers"]}
    monkeypatch.setattr("ikvcore.testing.faults.__main__.CAMPAIGNS", everything)
    monkeypatch.setattr("ikvcore.testing.faults.kills.writers", _violated)
    page = tmp_path / "reliability.md"
    main(["--full", *given, "--table", str(page), "--directory", str(tmp_path)])
    assert f"\nWritten by `{command}`. Versions: " in page.read_text()


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        ("lmdb", {}),
        ("sqlite", {"damaged-logs": "no replica", "hostile-bytes": "no replica"}),
        (
            "duckdb",
            {
                "damaged-logs": "no replica",
                "hostile-bytes": "no replica",
                "killed-readers": "sharing is one-process",
                "takeover": "sharing is one-process",
                "pinned-pages": "sharing is one-process",
            },
        ),
        ("memory", dict.fromkeys(CAMPAIGNS, "keeps nothing in files") | dict.fromkeys(ALONE, "no replica")),
    ],
)
def test_a_campaign_is_left_out_where_it_cannot_be(backend: str, why: dict[str, str]) -> None:
    found = {name: campaign.why_not(Pair(backend=backend)) for name, campaign in CAMPAIGNS.items()}
    assert {name for name, said in found.items() if said} == why.keys()
    assert all(word in found[name] for name, word in why.items())


def test_a_child_beside_its_parent_is_told_who_has_the_mount_of_a_backend_for_one_process(tmp_path: Path) -> None:
    result = children.run(
        times=1, seed=1, directory=tmp_path / "children", pair=Pair(backend="duckdb"), ways=["spawn, daemon"]
    )
    result.require()
    assert "MountBusyError" in result.rows[0].happened


def test_the_program_says_what_was_violated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its exit status, and in the table that it writes."""
    monkeypatch.setattr("ikvcore.testing.faults.kills.writers", _violated)
    page = tmp_path / "reliability.md"
    assert main(["--only", "killed-writers", "--table", str(page), "--directory", str(tmp_path), "--seed", "5"]) == 1
    assert "| seeded | 12 | lost | 1 | 5 |" in page.read_text()


def test_a_campaign_that_dies_is_a_violation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(**_: object) -> Result:
        raise TimeoutError("not within 60 s: something")

    monkeypatch.setattr("ikvcore.testing.faults.kills.writers", dying)
    page = tmp_path / "reliability.md"
    assert main(["--only", "killed-writers", "--table", str(page), "--directory", str(tmp_path)]) == 1
    assert "TimeoutError: not within 60 s: something | 1 |" in page.read_text()


def _violated(*, times: int, seed: int, directory: Path, pair: Pair) -> Result:
    return Result(rows=[Row(fault="seeded", times=times, happened="lost", violations=1, seed=seed)], violations=["one"])
