# /// script
# requires-python = ">=3.11"
# dependencies = ["paraformer"]
# ///
"""Recognise files, or the clips that come with the package: `python offline.py [FILE ...]`."""

from __future__ import annotations

import sys
from importlib.resources import files

import paraformer


def main() -> None:
    samples = files("paraformer") / "samples"
    paths = sys.argv[1:] or sorted(str(path) for path in samples.iterdir() if path.name.endswith(".flac"))

    recognizer = paraformer.load()  # the small model that comes with the package; no network
    for path, transcript in zip(paths, recognizer.transcribe(paths), strict=True):
        print(f"{path} ({transcript.duration_s:.1f} s, confidence {transcript.confidence:.2f})")
        print(transcript.text)
        print(" ".join(f"{token.text}@{token.start_s:.2f}" for token in transcript.tokens))


if __name__ == "__main__":
    main()
