"""The simulated light: fibre, detectors, eavesdropper, and QKD modules that stand behind the ports of real ones."""
