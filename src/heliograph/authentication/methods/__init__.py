"""How a message proves its origin: one small interface, one module for each method, a registry by name (no I/O)."""
