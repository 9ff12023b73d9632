"""ikvcore.tokens: what a write returns."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from ikvcore.errors import InvalidTokenError
from ikvcore.tokens import Token


def test_the_empty_token_is_false_and_joins_with_any_other() -> None:
    token = Token("log", {0: 5})
    assert not Token()
    assert token
    assert Token() | token == token
    assert token | Token() == token
    assert not Token() | Token()


def test_a_token_without_positions_is_the_empty_token() -> None:
    assert Token("log", {}) == Token()
    assert Token("log").identity == ""


def test_joining_takes_the_further_position_of_each_partition() -> None:
    joined = Token("log", {0: 5, 1: 9}) | Token("log", {1: 7, 2: 0})
    assert joined == Token("log", {0: 5, 1: 9, 2: 0})
    assert Token("log", {1: 7}) | Token("log", {1: 9}) == Token("log", {1: 9})


def test_joining_changes_neither_token() -> None:
    one, two = Token("log", {0: 1}), Token("log", {0: 2, 1: 1})
    _ = one | two
    assert one.positions == {0: 1}
    assert two.positions == {0: 2, 1: 1}


def test_tokens_of_two_logs_cannot_be_joined() -> None:
    with pytest.raises(InvalidTokenError, match="'one' and 'two'"):
        _ = Token("one", {0: 1}) | Token("two", {0: 1})


def test_only_tokens_can_be_joined() -> None:
    with pytest.raises(TypeError):
        _ = Token("log", {0: 1}) | {1: 2}  # type: ignore[operator]


@pytest.mark.parametrize(
    "token",
    [Token(), Token("a-1_b.C", {0: 0}), Token("log", {65535: 1, 0: 2**64, 7: 10**100})],
)
def test_str_parse_repr_and_pickle_carry_a_token(token: Token) -> None:
    assert Token.parse(str(token)) == token
    assert eval(repr(token)) == token
    assert pickle.loads(pickle.dumps(token)) == token


def test_the_text_of_a_token_is_fixed_and_ordered_by_partition() -> None:
    assert str(Token("log", {2: 30, 0: 10})) == "ikv1:log:0=10,2=30"
    assert str(Token()) == "ikv1::"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ikv1",
        "ikv1:log",
        "ikv1:log:",
        "ikv1::0=1",
        "ikv2:log:0=1",
        "ikv1:log:0=",
        "ikv1:log:0=-1",
        "ikv1:log:0=1,",
        "ikv1:log:0=1,0=2",
        "ikv1:log:65536=1",
        "ikv1:log:0=1\n",
        "ikv1:a b:0=1",
        "ikv1:log:0=\u0663",
        "ikv1:log:0=" + "9" * 5000,
        None,
        b"ikv1:log:0=1",
        7,
    ],
)
def test_what_is_no_token_is_refused_with_a_short_message(text: Any) -> None:
    with pytest.raises(InvalidTokenError, match="is not a token") as caught:
        Token.parse(text)
    assert len(str(caught.value)) < 250


def test_tokens_compare_and_hash_by_value() -> None:
    one, two = Token("log", {0: 1, 1: 2}), Token("log", {1: 2, 0: 1})
    assert one == two
    assert hash(one) == hash(two)
    assert one != Token("log", {0: 1})
    assert one != Token("gol", {0: 1, 1: 2})
    assert one != "ikv1:log:0=1,1=2"


def test_a_token_cannot_be_changed_from_outside() -> None:
    given = {0: 1}
    token = Token("log", given)
    given[0] = 2
    token.positions[0] = 3
    assert token.positions == {0: 1}
    with pytest.raises(AttributeError):
        token.identity = "other"  # type: ignore[misc]
