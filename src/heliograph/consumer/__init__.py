"""What a key consumer does with its keys: the rotation of an encryptor, without I/O."""
