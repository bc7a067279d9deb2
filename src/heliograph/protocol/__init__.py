"""What two sites say to each other, and the machines that decide what to say next (no I/O)."""
