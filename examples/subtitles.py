# /// script
# requires-python = ">=3.11"
# dependencies = ["paraformer"]
# ///
"""Subtitles of a recording of any length, cut at the pauses of speech: `python subtitles.py RECORDING > out.srt`.

The command `paraformer transcribe --format srt` does the same with lines of readable width; this shows the parts.
"""

from __future__ import annotations

import sys
from importlib.resources import files

import paraformer
from paraformer import audio
from paraformer.segment import SegmentConfig, VoiceSegmenter


def clock(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else str(files("paraformer") / "samples" / "meeting.flac")
    recognizer = paraformer.load()
    segmenter = VoiceSegmenter(SegmentConfig(max_s=6.0, min_s=1.0))  # short enough to be read

    number = 0
    for start_s, samples in segmenter(audio.read_blocks(path)):  # memory does not grow with the recording
        transcript = recognizer.transcribe(samples)
        if transcript.tokens:
            number += 1
            begin, end = start_s + transcript.tokens[0].start_s, start_s + transcript.tokens[-1].end_s
            print(f"{number}\n{clock(begin)} --> {clock(end)}\n{transcript.text}\n")


if __name__ == "__main__":
    main()
