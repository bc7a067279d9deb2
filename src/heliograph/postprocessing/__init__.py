"""From sifted bits to a secret key: the five stages, pure functions over frozen records."""
