"""The receiver model of ``sim.clicks`` again, pulse by pulse: slow, obvious, and with its own choices and dice."""

from __future__ import annotations

import numpy as np


def oracle(light, *, eta, p_dark, e_mis, dead, p_after, decay_slots, frame, rng):
    """Visit every pulse. Returns slots, patterns, and the three choices (bases equal, intensity, bit) at the clicks."""
    n = light.pulses
    z_sent, z_measured = rng.random(n) < light.transmitter_z_probability, rng.random(n) < light.receiver_z_probability
    intensity = rng.choice(len(light.intensities), size=n, p=light.intensity_probabilities)
    bit = rng.integers(0, 2, n)
    photons = eta * np.array(light.intensities)[intensity]
    share_of_1 = np.where(z_sent == z_measured, np.where(bit == 1, 1 - e_mis, e_mis), 0.5)
    fires = np.stack(
        (  # by light or dark count, were the detector alive
            rng.random(n) < 1 - (1 - p_dark) * np.exp(-photons * (1 - share_of_1)),
            rng.random(n) < 1 - (1 - p_dark) * np.exp(-photons * share_of_1),
        )
    ).T.tolist()
    slots, patterns = [], []
    alive_from, release = 0, [-1, -1]
    for slot in range(n):
        if slot % frame == 0:
            alive_from, release = slot + dead, [-1, -1]
        if slot < alive_from:
            continue
        clicks = [fires[slot][d] or release[d] == slot for d in (0, 1)]
        if any(clicks):
            slots.append(slot)
            patterns.append(clicks[0] + 2 * clicks[1])
            alive_from = slot + dead + 1
            for d in (0, 1):
                if clicks[d] and rng.random() < p_after:
                    release[d] = alive_from + int(rng.exponential(decay_slots))
    return (
        np.array(slots),
        np.array(patterns),
        (z_sent == z_measured)[slots],
        intensity[slots],
        bit[slots],
        z_sent[slots],
    )
