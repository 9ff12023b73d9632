"""Passkey hashes: self-describing, bounded, remembered."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import pytest

from ikvcore import _passkeys
from ikvcore._passkeys import hash_passkey, verify_passkey

# Made by hashlib.scrypt directly, with cheap parameters: what the text means is fixed by it.
KNOWN = "$scrypt$ln=4,r=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$GjoPw1StFDRBVvgvd41tTWreq8EdhAX+hj4z7gTMkcg"


@pytest.fixture
def derivations(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The parameters of each scrypt computation made from here on, with an empty cache."""
    calls: list[dict[str, Any]] = []
    scrypt = hashlib.scrypt

    def counted(passkey: bytes, **parameters: Any) -> bytes:
        calls.append(parameters)
        return scrypt(passkey, **parameters)

    monkeypatch.setattr(hashlib, "scrypt", counted)
    monkeypatch.setattr(_passkeys, "_verified", {})
    return calls


def test_a_hash_describes_itself_and_is_salted() -> None:
    first, second = hash_passkey("secret"), hash_passkey("secret")
    assert first.startswith("$scrypt$ln=14,r=8,p=5$")
    assert first != second
    assert "secret" not in first


def test_the_passkey_and_no_other_is_accepted(derivations: list[dict[str, Any]]) -> None:
    stored = hash_passkey("sécret")
    derivations.clear()
    _passkeys._verified.clear()
    assert verify_passkey("sécret", stored)
    assert not verify_passkey("secret", stored)
    assert not verify_passkey("", stored)
    assert len(derivations) == 3


def test_a_passkey_of_bytes_that_are_not_utf8_works(monkeypatch: pytest.MonkeyPatch) -> None:
    passkey = b"\xff\xfe".decode("utf-8", "surrogateescape")
    stored = hash_passkey(passkey)
    monkeypatch.setattr(_passkeys, "_verified", {})
    assert verify_passkey(passkey, stored)


def test_parameters_are_read_from_the_text(derivations: list[dict[str, Any]]) -> None:
    """So that hashes made with other parameters stay good when the defaults change."""
    assert verify_passkey("secret", KNOWN)
    assert (derivations[0]["n"], derivations[0]["r"], derivations[0]["p"]) == (16, 1, 1)


def test_a_pair_that_was_verified_is_not_computed_again(derivations: list[dict[str, Any]]) -> None:
    assert all(verify_passkey("secret", KNOWN) for _ in range(3))
    assert len(derivations) == 1


def test_a_wrong_passkey_is_computed_each_time(derivations: list[dict[str, Any]]) -> None:
    assert not any(verify_passkey("wrong", KNOWN) for _ in range(3))
    assert len(derivations) == 3


def test_an_unknown_account_costs_what_a_wrong_passkey_costs(derivations: list[dict[str, Any]]) -> None:
    stored = hash_passkey("secret")
    derivations.clear()
    assert not verify_passkey("wrong", stored)
    assert not verify_passkey("wrong", None)
    wrong, unknown = ({**call, "salt": len(call["salt"])} for call in derivations)
    assert wrong == unknown


def test_the_cache_holds_no_passkey_and_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_passkeys, "_verified", {})
    monkeypatch.setattr(_passkeys, "_MAX_VERIFIED", 2)
    for salt in (b"a" * 16, b"b" * 16, b"c" * 16):
        known = _passkeys._parse(KNOWN)._replace(salt=salt)
        assert verify_passkey("secret", str(known._replace(digest=known.derive("secret"))))
    assert len(_passkeys._verified) <= 2
    assert b"secret" not in b"".join(_passkeys._verified)


def test_threads_may_verify_at_once() -> None:
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda word=word: results.append(verify_passkey(word, KNOWN) is (word == "secret")))
        for word in ("secret", "wrong") * 8
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 16


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        KNOWN[:-10] + "?" * 10,
        KNOWN.replace("ln=4", "ln=0"),
        KNOWN.replace("ln=4", "ln=30"),
        KNOWN.replace("ln=4,r=1", "ln=20,r=8"),
        KNOWN.replace("r=1", "r=0"),
        KNOWN.replace("ln=4,r=1,p=1", "ln=14,r=8,p=99"),
        KNOWN + "\n",
    ],
)
def test_a_malformed_or_unreasonable_text_is_refused_before_anything_is_computed(
    text: str, derivations: list[dict[str, Any]]
) -> None:
    with pytest.raises(ValueError, match="passkey hash"):
        verify_passkey("secret", text)
    assert derivations == []
