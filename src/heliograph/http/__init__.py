"""ETSI GS QKD 014 over mutual TLS: the server and a client, an adapter."""
