"""Names of stores and accounts, and of their directories."""

import pytest

from ikvcore._names import check_name, directory_name
from ikvcore.errors import InvalidNameError


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "...", "-", ".hidden", "x" * 249])
def test_a_name_of_allowed_characters_is_returned(name: str) -> None:
    assert check_name("store name", name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a\n", "é", "x" * 250, "a\0b", "~a", None, 3, b"a"])
def test_any_other_name_is_refused_by_what_it_was_for(name: object) -> None:
    with pytest.raises(InvalidNameError, match="cannot be a store name"):
        check_name("store name", name)


def test_directories_of_names_that_differ_in_case_alone_differ_without_it() -> None:
    assert directory_name("Profiles").casefold() != directory_name("profiles").casefold()


def test_a_directory_begins_with_the_name_and_is_short() -> None:
    assert directory_name("Profiles").startswith("profiles-")
    assert len(directory_name("x" * 249)) == 57


def test_directories_of_long_names_with_one_beginning_differ() -> None:
    assert directory_name("x" * 248 + "a") != directory_name("x" * 248 + "b")


def test_the_form_of_a_directory_name_is_fixed() -> None:
    """Stores on disk are found by it, whatever release made them."""
    assert directory_name("Profiles") == "profiles-535e52e4a2616ebe"
