"""Carries frames between sites over a network. Promises nothing about who reads or writes on the way."""
