"""Information reconciliation by Cascade, as two halves that only exchange parities."""
