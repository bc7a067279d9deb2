"""Key management inside a site: who may have which key, and the ETSI GS QKD 014 codec. No I/O."""
