"""What is said for the tests of the core tier; `make kit` holds it against the whole matrix."""

from __future__ import annotations

import pytest

from kit_matrix import PAGE, Fault, Found, page
from kit_reasons import account, core_tests, place, reasons

ONE, TWO, THREE = "TestKeyValue::test_one", "TestStorage::test_two", "TestLog::test_three"


def test_every_reason_is_a_sentence_and_names_a_core_test() -> None:
    told = account([], core_tests(), reasons())
    assert told.stray == []
    assert [why for why in reasons().values() if len(why.split()) < 8 or not why.endswith(".")] == []


def test_tests_of_other_tiers_are_not_the_cores() -> None:
    assert "TestKeyValue::test_scan_bounds" in core_tests()
    assert place("TestMemoryKeyValue.test_fork") not in core_tests()


@pytest.mark.parametrize(
    ("ran", "kit"),
    [
        ("TestMemoryKeyValue.test_one", ONE),
        ("TestDuckdbStorage.test_two", TWO),
        ("TestLocalTransport.test_three", THREE),
    ],
)
def test_a_plugins_test_is_one_of_the_kits(ran: str, kit: str) -> None:
    assert place(ran) == kit


def test_a_test_is_a_sole_catcher_or_has_a_reason_or_is_told() -> None:
    found = [
        ("alone", ["TestLmdbKeyValue.test_one"]),
        ("together", ["TestDuckdbStorage.test_two", "TestDuckdbStorage.test_four"]),
        ("of another tier", ["TestMemoryKeyValue.test_fork"]),
    ]
    told = account(found, [ONE, TWO, THREE], {"TestStorage::*": "why", "TestKeyValue::test_five": "gone"})
    assert told.sole == {ONE: ["alone"]}
    assert told.reasons == {"why": [TWO]}
    assert (told.without, told.stray) == ([THREE], ["TestKeyValue::test_five"])


def test_a_reason_gives_way_to_a_fault() -> None:
    told = account([("alone", ["TestLmdbKeyValue.test_one"])], [ONE], {ONE: "why"})
    assert (told.sole, told.reasons, told.stray, told.spare) == ({ONE: ["alone"]}, {}, [], [ONE])


def test_the_page_has_both() -> None:
    fault = Fault("alone", "it is wrong", "tests/x.py", PAGE)
    told = account([("alone", ["TestLmdbKeyValue.test_one"])], [ONE, TWO], {"TestStorage::*": "The core's own."})
    text = page([(fault, Found(("TestLmdbKeyValue.test_one",), ()))], [("tests/x.py", 20)], told)
    assert f"| `{ONE}` | `alone` |" in text
    assert "| The core's own. | `TestStorage`: `test_two` |" in text
