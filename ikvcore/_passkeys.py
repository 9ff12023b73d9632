"""Passkeys are kept as scrypt hashes only, in a text that says how it was made: ``$scrypt$ln=14,r=8,p=5$salt$hash``.

The parameters are one of the OWASP Password Storage Cheat Sheet's equal choices; salt and hash are base64 without
padding, as in the PHC string format. A check costs 0.2 s on purpose, so a process remembers the pairs it verified.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from typing import Final, NamedTuple

__all__ = ["hash_passkey", "verify_passkey"]

_FORM: Final = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{22,86})\$([A-Za-z0-9+/]{22,86})"
)
_LOG_N: Final = 14
_R: Final = 8
_P: Final = 5
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32

# What a stored text may ask for: OWASP's largest choice (ln=17, r=8, p=1) fits, a hostile file's gigabytes do not.
_MAX_MEMORY: Final = 128 * 1024 * 1024
_MAX_WORK: Final = 2**21

_cache_key: Final = secrets.token_bytes(32)
_verified: Final[dict[bytes, None]] = {}
_MAX_VERIFIED: Final = 1024


class _Hash(NamedTuple):
    log_n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def derive(self, passkey: str) -> bytes:
        # OpenSSL counts a little more than 128 * N * r; twice that is room enough.
        memory = 256 * 2**self.log_n * self.r
        return hashlib.scrypt(
            _encoded(passkey),
            salt=self.salt,
            n=2**self.log_n,
            r=self.r,
            p=self.p,
            maxmem=memory,
            dklen=len(self.digest),
        )

    def __str__(self) -> str:
        return f"$scrypt$ln={self.log_n},r={self.r},p={self.p}${_to_text(self.salt)}${_to_text(self.digest)}"


# Stands in for the hash of an account that does not exist; no passkey is accepted by it.
_NOBODY: Final = _Hash(_LOG_N, _R, _P, secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_HASH_BYTES))


def hash_passkey(passkey: str) -> str:
    """A new self-describing hash of `passkey`, with a salt of its own."""
    fresh = _NOBODY._replace(salt=secrets.token_bytes(_SALT_BYTES))
    stored = str(fresh._replace(digest=fresh.derive(passkey)))
    _remember(_pair(passkey, stored))
    return stored


def verify_passkey(passkey: str, stored: str | None) -> bool:
    """Whether `stored` is a hash of `passkey`. Thread-safe.

    None, for an account that does not exist, is False at the cost of a wrong passkey, so that the time taken tells
    nothing. Raises ValueError where `stored` is malformed or asks for unreasonable memory or work.
    """
    if stored is None:
        _NOBODY.derive(passkey)
        return False
    known = _parse(stored)
    pair = _pair(passkey, stored)
    if pair in _verified:
        return True
    if not hmac.compare_digest(known.derive(passkey), known.digest):
        return False
    _remember(pair)
    return True


def _pair(passkey: str, stored: str) -> bytes:
    """What the cache holds: never a passkey, but a digest of both under a key that no other process has."""
    text = b"\0".join((stored.encode(), _encoded(passkey)))
    return hashlib.blake2b(text, key=_cache_key, digest_size=32).digest()


def _remember(pair: bytes) -> None:
    # Each of these operations is atomic, so the cache needs no lock that a fork could leave held.
    if len(_verified) >= _MAX_VERIFIED:
        _verified.clear()
    _verified[pair] = None


def _parse(stored: str) -> _Hash:
    match = _FORM.fullmatch(stored)
    if match is None:
        raise ValueError("not a passkey hash of the form $scrypt$ln=..,r=..,p=..$salt$hash")
    log_n, r, p = (int(number) for number in match.groups()[:3])
    if not (log_n and r and p) or log_n > 20 or 128 * 2**log_n * r > _MAX_MEMORY or 2**log_n * r * p > _MAX_WORK:
        raise ValueError(f"a passkey hash with unreasonable parameters (ln={log_n}, r={r}, p={p})")
    return _Hash(log_n, r, p, _from_text(match[4]), _from_text(match[5]))


def _encoded(passkey: str) -> bytes:
    # Arguments and variables that are not UTF-8 reach Python as lone surrogates; they are passkeys like any other.
    return passkey.encode("utf-8", "surrogatepass")


def _to_text(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode()


def _from_text(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as exc:
        raise ValueError("a passkey hash whose base64 is damaged") from exc
