"""The fibre process's configuration file, FIBRE.toml.

transmitter = "unix:/run/heliograph/fibre-transmitter.sock"
receiver = "tcp:127.0.0.1:7101"
seed = 1                        # optional; a fresh one otherwise
realtime = false                # optional; true: a block takes pulses / clock seconds

[fibre]
distance_km = 25                # and attenuation_db_per_km, receiver_loss_db, misalignment

[detectors]                     # optional, each entry; the default is LIM_2014
dead_time_s = 1e-6

[eve]                           # optional
attack = "intercept-resend"
fraction = 0.1                  # and z_probability
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from heliograph.errors import ConfigurationError
from heliograph.sim.address import Address, parse_address
from heliograph.sim.channel import Channel, FibreParameters
from heliograph.sim.detectors import LIM_2014, DetectorParameters
from heliograph.sim.eve import Attack, InterceptResend
from heliograph.sim.randomness import fresh_lab_seed

__all__ = ["FibreConfig", "read_config"]


@dataclass(frozen=True, slots=True)
class FibreConfig:
    """What the fibre process needs, checked."""

    transmitter: Address
    receiver: Address
    lab_seed: int
    realtime: bool
    channel: Channel
    attack: Attack | None


class _Eve(msgspec.Struct, forbid_unknown_fields=True):
    attack: Literal["intercept-resend"]
    fraction: float
    z_probability: float = 0.5


class _File(msgspec.Struct, forbid_unknown_fields=True):
    transmitter: str
    receiver: str
    fibre: dict[str, object]
    detectors: dict[str, object] = {}
    eve: _Eve | None = None
    seed: int | None = None
    realtime: bool = False


def read_config(path: Path) -> FibreConfig:
    """Return the configuration in a file. Raises ConfigurationError, one line that names file and entry."""
    try:
        with path.open("rb") as stream:
            file = msgspec.convert(tomllib.load(stream), _File)
        return _checked(file)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}; name the fibre's configuration") from None
    except (ValueError, ConfigurationError) as error:  # of TOML, of msgspec, and of our own records
        raise ConfigurationError(f"{path}: {error}") from None


def _checked(file: _File) -> FibreConfig:
    transmitter = parse_address(file.transmitter, "transmitter")
    receiver = parse_address(file.receiver, "receiver")
    if transmitter == receiver:
        raise ConfigurationError(f"transmitter and receiver = {str(receiver)!r}: two addresses are needed")
    if file.seed is not None and file.seed < 0:
        raise ConfigurationError(f"seed = {file.seed}: must not be negative")
    return FibreConfig(
        transmitter=transmitter,
        receiver=receiver,
        lab_seed=fresh_lab_seed() if file.seed is None else file.seed,
        realtime=file.realtime,
        channel=Channel(
            _section("fibre", FibreParameters, {}, file.fibre),
            _section("detectors", DetectorParameters, dataclasses.asdict(LIM_2014), file.detectors),
        ),
        attack=None if file.eve is None else InterceptResend(file.eve.fraction, file.eve.z_probability),
    )


_Section = TypeVar("_Section", FibreParameters, DetectorParameters)


def _section(name: str, kind: type[_Section], defaults: Mapping[str, float], entries: Mapping[str, object]) -> _Section:
    """Make the record of a section. Raises ConfigurationError for entries it does not know, lacks or cannot use."""
    fields = dataclasses.fields(kind)
    unknown = sorted(entries.keys() - {field.name for field in fields})
    if unknown:
        raise ConfigurationError(f"[{name}] has no entry {unknown[0]!r}; known: {[field.name for field in fields]}")
    given = dict(defaults)
    for entry, value in entries.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigurationError(f"[{name}] {entry} = {value!r}: write a number")
        given[entry] = float(value)
    missing = [field.name for field in fields if field.default is dataclasses.MISSING and field.name not in given]
    if missing:
        raise ConfigurationError(f"[{name}] lacks {missing[0]}")
    try:
        return kind(**given)
    except ValueError as error:
        raise ConfigurationError(f"[{name}] {error}") from None
