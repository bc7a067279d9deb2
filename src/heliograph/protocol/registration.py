"""What two sites agree on before they ever connect; no message lowers it, unequal records refuse the link.

The record is equal on both sites up to which one is "here". Its digest is compared under the anchor's key at every
connection and is bound into every tag (security.md 7).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from heliograph.authentication.bootstrap import BOOTSTRAP_BLOCKS, METHODS, has_signature
from heliograph.authentication.link_keys import LINK_KEYS_BITS
from heliograph.authentication.methods.registry import DEFAULT_METHOD, MACS, SIGNATURE
from heliograph.authentication.pads import PAD_SET_BITS
from heliograph.errors import ConfigurationError
from heliograph.kernels.ldpc_codes import VERSION
from heliograph.postprocessing.amplification import DEFAULT_FAMILY, FAMILIES, Family
from heliograph.postprocessing.secrecy.acceptance import check_parameters
from heliograph.postprocessing.verification import collision_bound
from heliograph.protocol.audience import audience_name
from heliograph.protocol.conversation import LinkIdentity
from heliograph.types import BlockParameters

__all__ = ["RECONCILIATIONS", "LinkRegistration", "Reconciliation", "SaePair", "check_key_sizes", "codes_of"]

Reconciliation = Literal["cascade", "ldpc"]
RECONCILIATIONS: Final[tuple[Reconciliation, ...]] = ("cascade", "ldpc")

KEY_SIZES_MAX: Final = 8  # our choice: each is a pool that has to fill


def codes_of(reconciliation: Reconciliation) -> int:
    """Return the version of the one-way codes that this release would register; 0 with Cascade, which has none."""
    return VERSION if reconciliation == "ldpc" else 0


def check_key_sizes(what: str, sizes: tuple[int, ...]) -> None:
    """Return if keys can have these sizes (bits). Raises ConfigurationError, which begins with ``what``."""
    for size in sizes:
        if size % 8 or not 64 <= size <= 4096:
            raise ConfigurationError(f"{what} = {size}: write a multiple of 8, 64 to 4096")
    if not 1 <= len(set(sizes)) == len(sizes) <= KEY_SIZES_MAX:
        raise ConfigurationError(f"{what}: {list(sizes)}: 1 to {KEY_SIZES_MAX} sizes, each once; take the others out")


@dataclass(frozen=True, slots=True)
class SaePair:
    """A master SAE and the slave SAE it shares keys with; the master's site owns the pair's keys.

    ``also_there`` and ``also_here``: further slaves, at the slave's site and at the master's, that share every key of
    this entry (ETSI GS QKD 014 Annex B); such a group has keys of its own, apart from those of its pairs.
    ``key_sizes``: bits of its keys, each size a pool of its own, the first for whoever names none; empty: the link's.
    """

    master: str
    slave: str
    also_there: tuple[str, ...] = ()
    also_here: tuple[str, ...] = ()
    key_sizes: tuple[int, ...] = ()

    @property
    def is_group(self) -> bool:
        """Whether there are several slaves."""
        return bool(self.also_there or self.also_here)

    @property
    def audience(self) -> str:
        """The slaves, as one name."""
        return audience_name((self.slave, *self.also_there, *self.also_here))

    @property
    def shares_here(self) -> tuple[str, ...]:
        """A group's slaves at the master's site."""
        return self.also_here

    @property
    def shares_there(self) -> tuple[str, ...]:
        """A group's slaves at the other site; none for a pair, whose key has one copy there."""
        return (self.slave, *self.also_there) if self.is_group else ()


@dataclass(frozen=True, slots=True)
class LinkRegistration:
    """A link as both sites have registered it.

    ``opening`` names the parameters of an epoch's first blocks (small: a key within seconds), ``opening_blocks`` how
    many of those make a key, ``steady`` the parameters of all later ones. ``transmitter_pairs`` are owned by the
    transmitter's site, ``receiver_pairs`` by the receiver's. ``key_size_bits``: of the keys of every entry that names
    no sizes of its own. ``bootstrap``: one of
    ``authentication.bootstrap.METHODS``; ``mac``: what protects all blocks after it. ``eps_total_max`` stops the link
    when its ledger is spent. ``amplification``: the 2-universal family of the hash, which every theorem in use allows;
    ``reconciliation``: two ways by Cascade, or one way by LDPC codes, of which ``codes`` is the version: both sites
    build the same ones, or nothing would decode.
    """

    link: str
    transmitter_site: str
    receiver_site: str
    parameters: tuple[BlockParameters, ...]
    opening: str
    opening_blocks: int
    steady: str
    key_size_bits: int
    transmitter_pairs: tuple[SaePair, ...]
    receiver_pairs: tuple[SaePair, ...]
    bootstrap: str = "psk"
    mac: str = DEFAULT_METHOD.name
    eps_total_max: float = 1e-6
    amplification: Family = DEFAULT_FAMILY
    reconciliation: Reconciliation = "cascade"
    codes: int = 0

    def __post_init__(self) -> None:
        names = [p.name for p in self.parameters]
        if len(set(names)) != len(names):
            raise ConfigurationError(f"link {self.link}: two parameter sets have one name: {names}")
        for name in (self.opening, self.steady):
            if name not in names:
                raise ConfigurationError(f"link {self.link}: no parameter set is named {name!r}; there are {names}")
        check_key_sizes(f"link {self.link}: key_size_bits", (self.key_size_bits,))
        if self.transmitter_site == self.receiver_site:
            raise ConfigurationError(
                f"link {self.link}: both ends are named {self.transmitter_site!r}; give each its own name"
            )
        if not self.transmitter_pairs and not self.receiver_pairs:
            raise ConfigurationError(f"link {self.link}: no pair of SAEs is registered: nobody could fetch a key")
        self._check_saes()
        if self.bootstrap not in METHODS:
            raise ConfigurationError(
                f"link {self.link}: bootstrap = {self.bootstrap!r}: write one of {', '.join(METHODS)}"
            )
        if self.mac not in MACS or (self.mac == SIGNATURE and not has_signature(self.bootstrap)):
            raise ConfigurationError(
                f"link {self.link}: mac = {self.mac!r}: write one of {', '.join(MACS)}; {SIGNATURE!r} needs a "
                "bootstrap with certificates or OpenPGP"
            )
        if self.amplification not in FAMILIES:
            raise ConfigurationError(
                f"link {self.link}: amplification = {self.amplification!r}: write one of {', '.join(FAMILIES)}"
            )
        if self.reconciliation not in RECONCILIATIONS:
            raise ConfigurationError(
                f"link {self.link}: reconciliation = {self.reconciliation!r}: write one of {', '.join(RECONCILIATIONS)}"
            )
        if self.codes != (known := codes_of(self.reconciliation)):
            raise ConfigurationError(
                f"link {self.link}: codes = {self.codes}: for reconciliation = {self.reconciliation!r} this release "
                f"has version {known} of the codes (0: none); plan the link anew, with one release on both sites"
            )
        for parameters in self.parameters:
            check_parameters(parameters)
            if collision_bound(parameters.acceptance.sifted_bits_max) > parameters.eps_cor:
                raise ConfigurationError(f"{parameters.name}: eps_cor is below what the verification hash can promise")
            # The link's own keys, the pads of one block, a key for each site.
            least = LINK_KEYS_BITS + PAD_SET_BITS + self.key_for_each_site_bits
            if parameters.secret_key_length < least:
                raise ConfigurationError(
                    f"link {self.link}: blocks {parameters.name!r} yield {parameters.secret_key_length} secret bits, "
                    f"{least} are needed to refill the pads and make keys: plan larger blocks"
                )

    def _check_saes(self) -> None:
        here: set[str] = set()
        there: set[str] = set()
        for pairs, own, other in (
            (self.transmitter_pairs, here, there),
            (self.receiver_pairs, there, here),
        ):
            for pair in pairs:
                names = [pair.master, pair.slave, *pair.also_there, *pair.also_here]
                if len(set(names)) != len(names) or not all(name.strip() and name.isprintable() for name in names):
                    raise ConfigurationError(
                        f"link {self.link}: SAEs {names}: name each once, in printable characters, none blank"
                    )
                if pair.key_sizes:
                    check_key_sizes(f"link {self.link}: key_sizes of SAEs {names}", pair.key_sizes)
                own |= {pair.master, *pair.also_here}
                other |= {pair.slave, *pair.also_there}
            entries = [(pair.master, pair.audience) for pair in pairs]
            if len(set(entries)) != len(entries):
                raise ConfigurationError(f"link {self.link}: a pair or group of SAEs is registered twice; keep one")
        if both := here & there:
            raise ConfigurationError(f"link {self.link}: SAE {min(both)!r} is at both sites; an SAE is at one")

    def digest(self) -> bytes:
        """Return SHA-256 over the one encoding of this record; equal exactly when the records are equal.

        A pair without further slaves is written without their members: as before there were groups. A link without
        one-way codes is written without their version, an entry whose keys have the link's size without sizes.
        """
        record = msgspec.to_builtins(self)
        if not record["codes"]:
            del record["codes"]
        for pair in (*record["transmitter_pairs"], *record["receiver_pairs"]):
            for name in ("also_there", "also_here", "key_sizes"):
                if not pair[name]:
                    del pair[name]
        return hashlib.sha256(msgspec.msgpack.encode(record)).digest()

    def identity(self) -> LinkIdentity:
        """Return what every tag of this link binds."""
        return LinkIdentity(self.link, self.transmitter_site, self.receiver_site, self.digest())

    def sizes_of(self, pair: SaePair) -> tuple[int, ...]:
        """Return the sizes of an entry's keys in bits, the one for whoever names none first."""
        return pair.key_sizes or (self.key_size_bits,)

    @property
    def key_for_each_site_bits(self) -> int:
        """Bits that hold one key of any pool of either site."""
        return sum(
            max((size for pair in pairs for size in self.sizes_of(pair)), default=self.key_size_bits)
            for pairs in (self.transmitter_pairs, self.receiver_pairs)
        )

    def find(self, name: str) -> BlockParameters | None:
        """Return the parameters registered under ``name``, if any."""
        return next((p for p in self.parameters if p.name == name), None)

    def for_block(self, block: int) -> BlockParameters:
        """Return the parameters the transmitter's site proposes for the ``block``-th block of an epoch."""
        # Block numbers jump when the bootstrap ends: whichever of its blocks made a key counts as the first.
        opening = self.opening_blocks > 0 and block < BOOTSTRAP_BLOCKS + self.opening_blocks
        found = self.find(self.opening if opening else self.steady)
        assert found is not None
        return found
