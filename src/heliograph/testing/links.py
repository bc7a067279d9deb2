"""A link for tests: short blocks with the real theorem, on a bright fibre, so that a key takes a tenth of a second."""

from __future__ import annotations

from dataclasses import replace

from heliograph.postprocessing.secrecy.link import LinkModel
from heliograph.postprocessing.secrecy.planning import ONE_WAY_MARGIN, plan_block
from heliograph.protocol.registration import LinkRegistration, Reconciliation, SaePair, codes_of
from heliograph.sim.channel import Channel, FibreParameters
from heliograph.sim.detectors import LIM_2014, DetectorParameters
from heliograph.types import BlockParameters

__all__ = ["example_channel", "example_registration", "quick_channel", "quick_registration"]

_DISTANCE_KM = 5.0
# No fibre and nearly perfect detectors: a block with the real theorem in a few hundredths of a second.
_QUICK_DETECTORS = DetectorParameters(
    efficiency=0.9,
    dark_count_probability=1e-7,
    afterpulse_probability=0.0,
    afterpulse_decay_s=0.0,
    dead_time_s=0.0,
)
_QUICK_MISALIGNMENT = 2e-4


def example_channel(detectors: DetectorParameters = LIM_2014) -> Channel:
    """Return 5 km of fibre with the default detectors."""
    return Channel(FibreParameters(distance_km=_DISTANCE_KM), detectors)


def quick_channel() -> Channel:
    """Return a channel on which small blocks yield keys; for tests that run hundreds of them."""
    return Channel(FibreParameters(distance_km=0.0, misalignment=_QUICK_MISALIGNMENT), _QUICK_DETECTORS)


def _model(channel: Channel) -> LinkModel:
    detectors = channel.detectors
    return LinkModel(
        clock_hz=1e9,
        transmittance=channel.eta,
        dark_count_probability=detectors.dark_count_probability,
        misalignment=channel.fibre.misalignment,
        afterpulse_probability=detectors.afterpulse_probability,
        dead_time_s=detectors.dead_time_s,
        afterpulse_decay_s=detectors.afterpulse_decay_s,
    )


def example_registration(
    target_bits: int = 100_000,
    detectors: DetectorParameters = LIM_2014,
    *,
    reconciliation: Reconciliation = "cascade",
) -> LinkRegistration:
    """Return a link whose blocks have about ``target_bits`` sifted bits."""
    margin = ONE_WAY_MARGIN if reconciliation == "ldpc" else None
    block = plan_block("test", _model(example_channel(detectors)), target_bits, margin=margin)
    return replace(_registration(block), reconciliation=reconciliation, codes=codes_of(reconciliation))


def quick_registration(
    target_bits: int = 30_000, *, decoys: int = 1, reconciliation: Reconciliation = "cascade"
) -> LinkRegistration:
    """Return a link over ``quick_channel`` with small blocks."""
    margin = ONE_WAY_MARGIN if reconciliation == "ldpc" else None
    block = plan_block("test", _model(quick_channel()), target_bits, decoys=decoys, margin=margin)
    return replace(_registration(block), reconciliation=reconciliation, codes=codes_of(reconciliation))


def _registration(block: BlockParameters) -> LinkRegistration:
    return LinkRegistration(
        link="a-b",
        transmitter_site="site-a",
        receiver_site="site-b",
        parameters=(block,),
        opening="test",
        opening_blocks=1,
        steady="test",
        key_size_bits=256,
        transmitter_pairs=(SaePair("sae-a", "sae-b"),),
        receiver_pairs=(SaePair("sae-b", "sae-a"),),
    )
