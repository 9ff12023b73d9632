"""Verifying the replica of a mount, and telling its processes what was found."""

from __future__ import annotations

from ikvcore._check import summary, verify_files
from ikvcore._damage import Damage
from ikvcore._mount import Mount
from ikvcore._visit import backend_name, is_blank
from ikvcore.clientoptions import ClientOptions
from ikvcore.errors import MountError

__all__ = ["verify_mount"]


def verify_mount(mount: Mount, options: ClientOptions) -> list[str]:
    """What is wrong with a mount's storage, none where all is well. Raises InvalidOptionError where it cannot tell.

    Damage that was not known is noted: the mount's readers rebuild the replica then.
    """
    directory = mount.generation()
    known = Damage.read(mount.path, directory.name)
    if known is not None:
        return [known.reason]
    if is_blank(mount):
        return ["there is no storage: no reader has made it yet, or its files were removed"]
    findings = verify_files(
        directory,
        backend=backend_name(mount, options),
        options=options.backend_options,
        partitions=mount.manifest.partitions,
        alone=False,
    )
    # Its readers may have replaced it meanwhile: then the findings are of the past.
    if findings and mount.generation() == directory:
        try:
            Damage(generation=directory.name, reason=summary(findings)).write(mount.path)
        except OSError as exc:
            raise MountError(mount.path, f"what was found could not be noted ({exc}): {summary(findings)}") from exc
    return findings
