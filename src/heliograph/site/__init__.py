"""Composition root of a site: the only place where its adapters meet the core."""
