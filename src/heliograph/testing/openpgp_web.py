"""A small web of trust in one temporary GnuPG home: real keys, certifications and revocations, for tests and demos."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from heliograph.errors import ConfigurationError

__all__ = ["OpenPgpWeb"]

_TIMEOUT_S = 30


class OpenPgpWeb:
    """Everybody's secret keys in one place, as no real web of trust would have them. A context manager.

    Times (``at``) are seconds since 1970, None for now; keys are named by their fingerprint in lower case.
    """

    def __init__(self) -> None:
        if shutil.which("gpg") is None or shutil.which("gpgconf") is None:
            raise ConfigurationError("GnuPG is missing: run  apt-get install -y gnupg  as root")
        # Not under a test's own directory: the path of the agent's socket must stay below 108 bytes.
        self._home = tempfile.TemporaryDirectory(prefix="hg-web-", ignore_cleanup_errors=True)
        self.home = Path(self._home.name)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """End the agent of this home, and remove the home with all secret keys in it."""
        subprocess.run(  # noqa: S603  - fixed words
            ["gpgconf", "--homedir", str(self.home), "--kill", "all"],  # noqa: S607  - the machine's own
            check=False,
            timeout=_TIMEOUT_S,
        )
        self._home.cleanup()

    def gpg(self, *arguments: str, at: int | None = None, data: bytes = b"") -> bytes:
        """Run gpg in this home with no questions asked; return what it prints."""
        time = [] if at is None else [f"--faked-system-time={at}!"]
        quiet = ["--quiet", "--no-tty", "--yes", "--no-auto-check-trustdb", "--disable-dirmngr"]
        batch = [] if "--command-fd=0" in arguments else ["--batch"]
        done = subprocess.run(  # noqa: S603  - the caller is a test or a demo
            [  # noqa: S607  - the machine's own
                "gpg",
                f"--homedir={self.home}",
                *quiet,
                *batch,
                "--pinentry-mode=loopback",
                "--passphrase=",
                *time,
                *arguments,
            ],
            input=data,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
        if done.returncode:
            raise ConfigurationError(f"gpg {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def make(self, user_id: str, expires: str = "2y", usage: str = "default", at: int | None = None) -> str:
        """Make an ed25519 key and return its fingerprint."""
        made = self.gpg("--status-fd=1", "--quick-generate-key", user_id, "ed25519", usage, expires, at=at)
        return next(line.split()[3] for line in made.decode().splitlines() if " KEY_CREATED " in line).lower()

    def certify(self, introducer: str, peer: str, *options: str, at: int | None = None) -> None:
        """Let ``introducer`` certify every name of ``peer``."""
        self.gpg(f"--local-user={introducer}", *options, "--quick-sign-key", peer.upper(), at=at)

    def edit(self, key: str, *lines: str, user: str | None = None, at: int | None = None) -> None:
        """Type ``lines`` at ``gpg --edit-key``, then save."""
        who = [] if user is None else [f"--local-user={user}"]
        typed = "\n".join([*lines, "save", ""]).encode()
        self.gpg(*who, "--command-fd=0", "--expert", "--edit-key", key.upper(), data=typed, at=at)

    def public(self, *keys: str, armour: bool = False) -> bytes:
        """Export certificates with the certifications on them."""
        return self.gpg(*(["--armor"] if armour else []), "--export", *keys)

    def secret(self, key: str) -> bytes:
        """Export a secret key without a passphrase."""
        return self.gpg("--export-secret-keys", key)

    def revocation(self, key: str) -> bytes:
        """Return the revocation certificate that GnuPG keeps for a key, its guard removed; nothing is revoked yet."""
        kept = (self.home / "openpgp-revocs.d" / f"{key.upper()}.rev").read_bytes()
        return kept[kept.index(b":-----BEGIN") + 1 :]
