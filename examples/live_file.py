# /// script
# requires-python = ">=3.11"
# dependencies = ["paraformer"]
# ///
"""Play a file into a live session at the speed of speech; text comes as it is decided: `python live_file.py [FILE]`."""

from __future__ import annotations

import sys
import time
from importlib.resources import files

import paraformer
from paraformer import audio

PACKET_S = 0.1


def main() -> None:
    samples = audio.read(sys.argv[1] if len(sys.argv) > 1 else str(files("paraformer") / "samples" / "meeting.flac"))
    session = paraformer.load().stream()

    size = round(PACKET_S * audio.SAMPLE_RATE)
    begun = time.monotonic()
    for start in range(0, len(samples), size):
        packet = samples[start : start + size]  # of any size: the text does not depend on it
        spoken_s = (start + len(packet)) / audio.SAMPLE_RATE
        time.sleep(max(0.0, begun + spoken_s - time.monotonic()))
        print(session.accept(packet), end="", flush=True)  # only new text, and it stays as it is
    print(session.finish())  # what is still undecided; no sample is lost


if __name__ == "__main__":
    main()
