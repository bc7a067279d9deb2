"""Key establishment: QKD, Diffie-Hellman and ML-KEM behind one interface, and the combiner of their secrets."""
