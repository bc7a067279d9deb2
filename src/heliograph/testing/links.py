"""A link for tests: short blocks with the real theorem, on a bright fibre, so that a key takes a tenth of a second."""

from __future__ import annotations

from heliograph.postprocessing.secrecy.link import LinkModel
from heliograph.postprocessing.secrecy.planning import plan_block
from heliograph.protocol.registration import LinkRegistration, SaePair
from heliograph.sim.channel import Channel, FibreParameters
from heliograph.sim.detectors import LIM_2014, DetectorParameters

__all__ = ["example_channel", "example_registration"]

_DISTANCE_KM = 5.0


def example_channel(detectors: DetectorParameters = LIM_2014) -> Channel:
    """Return 5 km of fibre with the default detectors."""
    return Channel(FibreParameters(distance_km=_DISTANCE_KM), detectors)


def _model(detectors: DetectorParameters) -> LinkModel:
    channel = example_channel(detectors)
    return LinkModel(
        clock_hz=1e9,
        transmittance=channel.eta,
        dark_count_probability=detectors.dark_count_probability,
        misalignment=channel.fibre.misalignment,
        afterpulse_probability=detectors.afterpulse_probability,
        dead_time_s=detectors.dead_time_s,
        afterpulse_decay_s=detectors.afterpulse_decay_s,
    )


def example_registration(target_bits: int = 100_000, detectors: DetectorParameters = LIM_2014) -> LinkRegistration:
    """Return a link whose blocks have about ``target_bits`` sifted bits."""
    block = plan_block("test", _model(detectors), target_bits)
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
