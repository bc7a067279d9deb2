"""A charon of one's own for each of two gateways: configuration, certificates, start. For rehearsals and tests.

The plugin kernel-libipsec carries ESP in the process through a TUN interface, so no kernel with IPsec is needed.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.util
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from heliograph.errors import ConfigurationError

__all__ = ["CHARON", "GatewayAuthority", "charon_socket", "start_charon", "why_no_charon"]

CHARON: Final = "/usr/sbin/charon-systemd"
_PACKAGES: Final = "charon-systemd libcharon-extra-plugins libstrongswan-standard-plugins libstrongswan-extra-plugins"
_PATIENCE_SECONDS: Final = 10.0
_PLUGINS: Final = (
    "random nonce aes sha1 sha2 hmac kdf pem pkcs1 pkcs8 x509 revocation constraints pubkey openssl gcm curve25519 gmp "
    "drbg kernel-libipsec kernel-netlink socket-default vici"
)
_CONFIGURATION: Final = """
charon-systemd {{
  load_modular = no
  load = {plugins}
  plugins {{
    vici {{ socket = unix://{place}/charon.vici }}
    kernel-libipsec {{ allow_peer_ts = yes }}
  }}
  filelog {{ f {{ path = {place}/log
      default = 1
      ike = 2
      cfg = 1
      flush_line = yes }} }}
  journal {{ default = -1 }}
  install_routes = yes
  retransmit_timeout = 0.5
  retransmit_tries = 3
}}
"""


def why_no_charon() -> str | None:
    """Return why no charon can be run and driven here, or None."""
    if importlib.util.find_spec("vici") is None:
        return "the Python package vici is missing: pip install heliograph[strongswan]"
    if not Path(CHARON).exists():
        return f"charon-systemd is missing: apt-get install -y {_PACKAGES}"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun is missing: charon's kernel-libipsec needs it"
    return None


class GatewayAuthority:
    """A certificate authority for two gateways; its key is forgotten with it."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateways")])
        self.root = self._sign(self._name, self._key, ())

    def _sign(self, name: x509.Name, key: Ed25519PrivateKey, names: Sequence[str]) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=7))
            .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False
            )
        return builder.sign(self._key, None)

    def issue(self, place: Path, *names: str) -> None:
        """Write gateway.pem for these names, gateway.key and root.pem."""
        key = Ed25519PrivateKey.generate()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        (place / "gateway.pem").write_bytes(self._sign(subject, key, names).public_bytes(Encoding.PEM))
        secret = place / "gateway.key"
        secret.touch(mode=0o600)
        secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (place / "root.pem").write_bytes(self.root.public_bytes(Encoding.PEM))


def charon_socket(place: Path) -> str:
    """Return the vici socket of the charon whose files are at ``place``."""
    return str(place / "charon.vici")


def start_charon(words: Sequence[str], place: Path) -> subprocess.Popen[str]:
    """Start a charon with no connection and no key by ``words``, and wait until it listens.

    Raises ConfigurationError with its own words.
    """
    (place / "strongswan.conf").write_text(_CONFIGURATION.format(plugins=_PLUGINS, place=place))
    with contextlib.suppress(FileNotFoundError):
        (place / "charon.vici").unlink()
    with (place / "out").open("a") as out:
        charon = subprocess.Popen(  # noqa: S603  - our own words
            ["env", f"STRONGSWAN_CONF={place / 'strongswan.conf'}", *words],  # noqa: S607  - where the system has it
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the command only, which then ends this
        )
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(charon_socket(place))
            return charon
        if charon.poll() is not None or time.monotonic() > until:
            charon.kill()
            charon.wait()
            raise ConfigurationError(f"charon did not start: {(place / 'out').read_text()[-300:]}")
        time.sleep(0.01)
