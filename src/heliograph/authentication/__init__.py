"""Who speaks, and that every word is theirs: anchors, one-time tags, pads and their addresses (no I/O)."""
