"""Durable state in one SQLite file: an adapter."""
