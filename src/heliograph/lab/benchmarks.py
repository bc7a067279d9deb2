"""The stages that ``heliograph bench`` knows. A stage is a function in a file of its own; its name stands here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from heliograph.lab import (
    bench_authentication,
    bench_encryptors,
    bench_kme,
    bench_kme_floods,
    bench_postprocessing,
    bench_simulator,
)

__all__ = ["STAGES", "Stage"]

# Without arguments it returns the document: ``stage`` and ``results`` (``lab.bench_rows.row``), whatever else the stage
# measures, and ``failures``: one line for each thing that must be true and is not, which makes the command exit 1.
Stage = Callable[..., dict[str, Any]]

STAGES: Final[Mapping[str, Stage]] = MappingProxyType(
    {
        "authentication": bench_authentication.run,
        "reconciliation": bench_postprocessing.reconciliation,
        "amplification": bench_postprocessing.amplification,
        "sifting": bench_postprocessing.sifting,
        "simulator": bench_simulator.simulator,
        "pipeline": bench_postprocessing.pipeline,
        "kme": bench_kme.run,
        "kme-floods": bench_kme_floods.run,
        "encryptors": bench_encryptors.run,
    }
)
