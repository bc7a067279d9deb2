"""Whether the compiled kernels are there. They change how long something takes, never a result."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Final

__all__ = ["KERNELS", "compiled"]


def _load() -> ModuleType | None:
    try:
        return importlib.import_module("heliograph.kernels._native")
    except ImportError:  # installed without a compiler, or built for another Python
        return None


compiled: Final[ModuleType | None] = _load()
KERNELS: Final = "compiled" if compiled is not None else "numpy, slower"
