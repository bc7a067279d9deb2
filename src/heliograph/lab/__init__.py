"""Rehearsals, attacks and claims: scenarios over the real parts."""
