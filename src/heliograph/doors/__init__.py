"""Who comes in at a key manager's listening socket, when, and how many at a time; the same for every standard."""
