"""Composition root of a network node: links to key managers, relay, its own key manager, one process."""
