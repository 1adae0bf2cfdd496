"""Training: one visible loop, averaging, and the bundle at the end."""
