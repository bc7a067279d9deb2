"""An encryptor's agent: key source, rotation and encryptor put together."""
