"""The model: architecture and mathematics only. Needs torch; imports nothing of the package but its settings."""
