"""Paraformer speech recognition: whole files and live streams."""
