"""What a plugin declares: which tests prove it, and which tests have nothing to test where it is not declared."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Final

from ikvcore.clientoptions import DEFAULT_TRANSPORT
from ikvcore.models import BackendInfo, Durability, Sharing, TransportInfo
from ikvcore.testing.conformance._golden import NONE_NAMED
from ikvcore.testing.conformance.tiers import Shape
from ikvcore.testing.conformance.verdict import Claim

__all__ = ["backend_claims", "backend_excuses", "transport_claims", "transport_excuses"]

_BACKEND_WITNESSES: Final = {
    "Verify": ("TestCapabilities::test_verify_finds_nothing_wrong_in_what_was_written",),
    "Query": ("TestStorage::test_query",),
    "Follower": ("TestStorage::test_two_instances", "TestStore::test_another_process_reads"),
    "sharing": ("TestStorage::test_two_instances", "TestStore::test_another_process_reads"),
    "process-crash": ("TestKills::test_kill_9_of_an_ingester",),
    "power-loss": ("TestPowerLosses::test_dropped_writes",),
    "key": ("TestKeyValue::test_longest_keys", "TestKeyValue::test_a_batch_that_fails"),
    "value": ("TestStorage::test_huge_values",),
}
_TRANSPORT_WITNESSES: Final = {
    "Provisioning": tuple(
        f"TestLog::test_{each}" for each in ("declaration", "describe", "list_stores", "store_exists", "delete_store")
    ),
    "VerifyLog": ("TestCapabilities::test_verify_log_finds_nothing_wrong_in_what_was_published",),
    "sharing": ("TestParallel::test_two_processes",),
    "process-crash": ("TestParallel::test_acknowledged_survives_a_kill",),
    "power-loss": ("TestPowerLosses::test_dropped_writes",),
    "passkeys": ("TestLog::test_one_error_for_every_refusal", "TestLog::test_rotate_passkey"),
}
_OF_FILES: Final = tuple(
    f"TestHostile::test_{each}" for each in ("damaged_replicas", "damaged_manifests", "changed_logs")
)
_NO_DURABILITY: Final = "declares no durability"
_NOT_SHARED: Final = "for one process at a time, by what it declares"


def backend_claims(info: BackendInfo, shape: Shape) -> list[Claim]:
    """What a backend declares, with the tests of it."""
    claims = [Claim(what=name, witnesses=_BACKEND_WITNESSES.get(name, ())) for name in sorted(info.capabilities)]
    claims += _durability(info.durability, _BACKEND_WITNESSES)
    if info.sharing is not Sharing.ONE_PROCESS:
        claims.append(Claim(what=f"sharing: {info.sharing.word}", witnesses=_BACKEND_WITNESSES["sharing"]))
    if shape == "bytes" and info.max_key_bytes is not None:
        claims.append(Claim(what=f"keys up to {info.max_key_bytes} bytes", witnesses=_BACKEND_WITNESSES["key"]))
    return claims


def transport_claims(info: TransportInfo) -> list[Claim]:
    """What a transport declares, with the tests of it."""
    claims = [Claim(what=name, witnesses=_TRANSPORT_WITNESSES.get(name, ())) for name in sorted(info.capabilities)]
    claims += _durability(info.durability, _TRANSPORT_WITNESSES)
    if info.process_shared:
        claims.append(Claim(what="shared by processes", witnesses=_TRANSPORT_WITNESSES["sharing"]))
    if info.keeps_passkeys:
        claims.append(Claim(what="keeps passkeys", witnesses=_TRANSPORT_WITNESSES["passkeys"]))
    return claims


def _durability(level: Durability, witnesses: dict[str, tuple[str, ...]]) -> Iterator[Claim]:
    """Levels are lower bounds: each one that is reached is a claim of its own."""
    for each in (Durability.PROCESS_CRASH, Durability.POWER_LOSS):
        if level >= each:
            yield Claim(what=f"durability: {each.word}", witnesses=witnesses[each.word])


def backend_excuses(info: BackendInfo, shape: Shape, transport: TransportInfo, *, golden: bool) -> dict[str, str]:
    """Class::test to why it may be skipped. transport: the one that it runs with. golden: it names golden files."""
    excuses: dict[str, str] = {}
    if info.max_key_bytes is None:
        excuses["TestKeyValue::test_a_batch_that_fails"] = "declares no limit of keys"
    if info.sharing is not Sharing.SHARED:
        excuses["TestParallel::test_two_processes"] = "not declared shared"
        excuses["TestStorage::test_two_ingesters"] = "not declared shared"
    if info.sharing is not Sharing.FOLLOWERS:
        for name in ("test_follower", "test_follower_in_another_process"):
            excuses[f"TestParallel::{name}"] = "declares no followers"
    if info.sharing is Sharing.ONE_PROCESS:
        excuses["TestStorage::test_two_instances"] = _NOT_SHARED
    if not (info.process_shared and transport.process_shared):
        excuses["TestStore::test_another_process_reads"] = _NOT_SHARED
    if info.durability < Durability.PROCESS_CRASH:
        excuses["TestParallel::test_committed_survives_a_kill"] = _NO_DURABILITY
    excuses["TestStore::test_c7_a_message_without_value"] = "the transport's own messages always have a value"
    return excuses | _of_capabilities(info, shape) | _of_golden(golden) | _of_harm(info, transport)


def _of_golden(golden: bool) -> dict[str, str]:
    """A plugin's first release has nothing older to open."""
    return {} if golden else {"TestFormat::test_golden_files_open": NONE_NAMED}


def _of_harm(info: BackendInfo, transport: TransportInfo) -> dict[str, str]:
    """What the harness cannot do to it."""
    excuses = {}
    names = {"a_writer": Sharing.ONE_PROCESS, "an_ingester": Sharing.ONE_PROCESS, "a_reader": Sharing.FOLLOWERS}
    for name, sharing in names.items():
        kept = min(info.durability, transport.durability) >= Durability.PROCESS_CRASH
        if info.volatile or not transport.process_shared or not kept:
            excuses[f"TestKills::test_kill_9_of_{name}"] = "nothing of it has to outlive a process"
        elif info.sharing < sharing:
            excuses[f"TestKills::test_kill_9_of_{name}"] = _NOT_SHARED
    if transport.name != DEFAULT_TRANSPORT:
        unknown = "the kit does not know the log's files"
    else:
        unknown = "it keeps no files" if info.volatile else ""
    if unknown:
        for place in ("TestPowerLosses::test_dropped_writes", *_OF_FILES):
            excuses[place] = unknown
    elif info.durability < Durability.POWER_LOSS or shutil.which("strace") is None:
        # Then the level is declared, and stays unverified.
        excuses["TestPowerLosses::test_dropped_writes"] = "declares less, or there is no strace here"
    if info.volatile:
        for name in ("its_own_files_open_again", "a_newer_format_is_refused_untouched", "golden_files_open"):
            excuses[f"TestFormat::test_{name}"] = "volatile, by what it declares"
    return excuses


def _of_capabilities(info: BackendInfo, shape: Shape) -> dict[str, str]:
    excuses = {}
    if "Verify" not in info.capabilities:
        excuses["TestCapabilities::test_verify_finds_nothing_wrong_in_what_was_written"] = "declares no Verify"
        if shape == "documents":  # over bytes the core verifies by itself
            excuses["TestStorage::test_verify"] = "declares no Verify"
    if "Query" not in info.capabilities:
        excuses["TestStorage::test_query"] = "declares no Query"
    if shape == "documents":
        for name in ("changes_nothing_visible", "beside_writes", "is_a_compare_and_set"):
            excuses[f"TestStorage::test_reclaim_{name}"] = "the storage masks nothing that would be reclaimed"
        excuses["TestStorage::test_a_drop_during_a_reclaim"] = "the storage masks nothing that would be reclaimed"
    return excuses


def transport_excuses(
    info: TransportInfo, backend: BackendInfo, *, carries_no_value: bool, trims: bool, golden: bool
) -> dict[str, str]:
    """Class::test to why it may be skipped. backend: the one of the replicas that follow it."""
    excuses = _of_golden(golden)
    if not carries_no_value:
        for place in ("TestLog::test_no_value", "TestStore::test_c7_a_message_without_value"):
            excuses[place] = "its own messages always have a value"
    if not trims:
        excuses["TestLog::test_trimmed"] = "the kit is given no way to cut its log"
    if not info.process_shared:
        excuses["TestParallel::test_two_processes"] = _NOT_SHARED
    if not (info.process_shared and backend.process_shared):
        excuses["TestStore::test_another_process_reads"] = _NOT_SHARED
    if info.durability < Durability.PROCESS_CRASH:
        excuses["TestParallel::test_acknowledged_survives_a_kill"] = _NO_DURABILITY
    if "VerifyLog" not in info.capabilities:
        verify = "TestCapabilities::test_verify_log_finds_nothing_wrong_in_what_was_published"
        excuses[verify] = "declares no VerifyLog"
    harm = _of_harm(backend, info)
    excuses |= {place: why for place, why in harm.items() if not place.startswith("TestFormat::")}
    if not info.process_shared:
        excuses["TestHostile::test_bad_events"] = "the log is for one process"
    return excuses
