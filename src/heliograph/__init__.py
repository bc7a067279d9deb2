"""Heliograph: quantum key distribution from photons to packets."""

__version__ = "0.1.0"
