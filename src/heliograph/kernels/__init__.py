"""The few hot loops: pure functions on numpy arrays and big integers."""
