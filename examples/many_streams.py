# /// script
# requires-python = ">=3.11"
# dependencies = ["paraformer"]
# ///
"""Several live streams that step together, as a server does it: one call of the model for all that are ready.

Each stream's text is the same as if it had been alone. One of them is saved and restored on the way, as for a move to
another machine.
"""

from __future__ import annotations

from importlib.resources import files

import paraformer
from paraformer import audio

PACKET = 3200  # samples, 0.2 s


def main() -> None:
    folder = files("paraformer") / "samples"
    clips = {path.name: audio.read(str(path)) for path in folder.iterdir() if path.name.endswith(".flac")}

    recognizer = paraformer.load()
    sessions = {name: recognizer.stream() for name in clips}
    for start in range(0, max(map(len, clips.values())) + PACKET, PACKET):
        for name, session in sessions.items():
            if start < len(clips[name]):
                session.feed(clips[name][start : start + PACKET])
            elif start - PACKET < len(clips[name]):
                session.end()  # the next step flushes what is left
        for name, text in zip(sessions, recognizer.advance(list(sessions.values())), strict=True):
            if text:
                print(f"{start / audio.SAMPLE_RATE:5.1f} s  {name:14} {text}")
        if start == 10 * PACKET:
            sessions["meeting.flac"] = recognizer.restore(sessions["meeting.flac"].save())

    for name, session in sessions.items():
        print(f"{name:14} {session.text}")


if __name__ == "__main__":
    main()
