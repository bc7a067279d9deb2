"""Tools for tests, part of the public package: deterministic twins and contract checks."""
