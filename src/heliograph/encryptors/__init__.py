"""Encryptors: adapters that carry user traffic under the keys of a consumer."""
