"""GnuPG as a program: a keyring of its own that lives for one question, with no agent, no network and no user's files.

Any failure of the program (missing, too old, killed, slow) is an answer of nobody's: it refuses.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from heliograph.errors import ConfigurationError

__all__ = ["GnuPG", "GnuPGFailed", "Keyring"]

TIMEOUT_S: Final = 20.0
_PLACE_BYTES_MAX: Final = 60
# 2.2.18 is the first that knows --allow-weak-key-signatures (CVE-2019-14855).
_OLDEST: Final = (2, 2, 18)
_OPTIONS: Final = (
    "--batch",
    "--no-tty",
    "--no-options",
    "--no-autostart",
    "--disable-dirmngr",
    "--no-auto-key-retrieve",
    "--no-auto-check-trustdb",
    # SHA-1 signatures are checked too: as certifications they are refused later, by name, but a revocation that
    # somebody made with SHA-1 must still revoke. Never --no-sig-cache: in 2.2.40 it makes the listing free the
    # signer's key twice, so that a credential could corrupt GnuPG's memory. What is cached here, GnuPG itself found
    # at the import into this same keyring, a moment ago and at the same standing time.
    "--allow-weak-key-signatures",
    "--import-options=no-import-local-sigs,no-keep-ownertrust",
)


class GnuPGFailed(Exception):
    """The program did not do what it was asked; the text says what it was doing."""


class GnuPG:
    """The ``gpg`` program of this machine. Raises ConfigurationError if there is none that can be used."""

    def __init__(self, program: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        found = shutil.which(program or "gpg")
        if found is None:
            raise ConfigurationError("GnuPG is missing: run  apt-get install -y gnupg  as root")
        self._program, self._timeout_s = found, timeout_s
        try:
            banner = self._run(["--version"], b"", Path("/nonexistent"))
        except GnuPGFailed as why:
            raise ConfigurationError(f"GnuPG {found}: {why}; reinstall the package gnupg") from None
        version = re.match(rb"gpg \(GnuPG[^)]*\) (\d+)\.(\d+)\.(\d+)", banner)
        if version is None or tuple(int(part) for part in version.groups()) < _OLDEST:
            raise ConfigurationError(f"GnuPG {found}: version 2.2.18 or newer is needed; upgrade the package gnupg")

    @contextmanager
    def keyring(self, now: int) -> Iterator[Keyring]:
        """Open an empty keyring whose time stands still at ``now`` (seconds since 1970), and remove it afterwards."""
        # GnuPG looks for an agent, which never runs, at a socket in its home: a path of at most 108 bytes.
        place = tempfile.gettempdir()
        try:
            home = tempfile.TemporaryDirectory(
                prefix="heliograph-openpgp-",
                dir=place if len(os.fsencode(place)) <= _PLACE_BYTES_MAX else "/tmp",  # noqa: S108  - a fresh 0700 one in it
                ignore_cleanup_errors=True,
            )
        except OSError as error:
            raise ConfigurationError(f"no temporary directory for GnuPG ({error.strerror}); free space") from None
        with home as place:  # made with mode 0700
            # An own common.conf: a machine-wide or later default (keyboxd) must not bring a daemon into this.
            (Path(place) / "common.conf").touch()
            yield Keyring(self, Path(place), now)

    def _run(self, arguments: list[str], data: bytes, home: Path) -> bytes:
        try:
            done = subprocess.run(  # noqa: S603  - a fixed program and fixed options; data only through the pipe
                [self._program, *arguments],
                input=data,
                capture_output=True,
                timeout=self._timeout_s,
                check=False,
                cwd="/",
                env={"GNUPGHOME": str(home), "HOME": str(home), "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
            )
        except subprocess.TimeoutExpired:
            raise GnuPGFailed(f"it was stopped after {self._timeout_s:g} s at {arguments[-1]}") from None
        except OSError as error:
            raise GnuPGFailed(f"it cannot be started ({error.strerror})") from None
        if done.returncode:
            last = (done.stderr.decode("utf-8", "replace").splitlines() or [""])[-1]
            raise GnuPGFailed(f"it ended with {done.returncode} at {arguments[-1]}: {last[:200]!r}")
        return done.stdout


class Keyring:
    """One private keyring of public keys."""

    def __init__(self, gnupg: GnuPG, home: Path, now: int) -> None:
        self._gnupg, self._home = gnupg, home
        self._options = [*_OPTIONS, f"--homedir={home}", f"--faked-system-time={now}!"]

    def add(self, data: bytes) -> None:
        """Import binary keys and revocations. Raises GnuPGFailed if GnuPG does not take all of it.

        Any exit code but 0 counts: GnuPG 2.2 stops at the first of several revocations when it has no trust database
        (with ``--trust-model=always`` it makes none), having revoked one key and passed over the others.
        """
        self._gnupg._run([*self._options, "--trust-model=pgp", "--import"], data, self._home)  # noqa: SLF001  - one mechanism, two halves

    def listing(self) -> bytes:
        """Return all keys with every signature checked, as ``--with-colons`` prints them. Raises GnuPGFailed.

        The trust model is not GnuPG's here: it answers for signatures, expiry and revocation, for nothing else.
        """
        return self._gnupg._run(  # noqa: SLF001  - the same
            [*self._options, "--trust-model=always", "--with-colons", "--check-sigs"], b"", self._home
        )
