"""Key-encryption keys and site-internal certificates: an adapter."""
