"""A transcript as text, JSON line, SubRip, WebVTT, tab-separated values, CTM or TextGrid.

Each ends without a line break.
"""

from __future__ import annotations

import json
from dataclasses import replace

from paraformer.cli.intervals import spoken_words, textgrid
from paraformer.records import record
from paraformer.subtitles import clock, cues, srt, vtt
from paraformer.types import Segment, Token, Transcript

Heard = Transcript | list[Transcript]
"""What was heard of an input, or of each of its channels."""
SUFFIXES = {
    "text": ".txt",
    "json": ".json",
    "srt": ".srt",
    "vtt": ".vtt",
    "tsv": ".tsv",
    "ctm": ".ctm",
    "textgrid": ".TextGrid",
}


def render(heard: Heard, form: str, *, name: str, timestamps: bool) -> str:
    """The transcript of the input called `name`, in one of the forms of SUFFIXES.

    Of a list, one for each channel, all that is said goes into one text: in subtitles in the order of time, else
    channel after channel; each line says which channel it is of.
    """
    channels: dict[int | None, Transcript] = {None: heard} if isinstance(heard, Transcript) else {}
    channels |= dict(enumerate(heard, 1)) if isinstance(heard, list) else {}
    if form in ("srt", "vtt"):
        lines = [
            replace(cue, text=_label(channel) + cue.text) for channel, one in channels.items() for cue in cues(one)
        ]
        return (srt if form == "srt" else vtt)(sorted(lines, key=lambda cue: cue.start_s))
    if form == "textgrid":
        return textgrid(channels)
    write = {"text": _text, "json": _json, "tsv": _tsv, "ctm": _ctm}[form]
    return "\n".join(write(one, name, channel, timestamps) for channel, one in channels.items())


def _text(transcript: Transcript, name: str, channel: int | None, timestamps: bool) -> str:  # noqa: ARG001
    """A line for each segment: a viewer can read an hour of them."""
    label = _label(channel)
    if not transcript.segments:
        return label.rstrip()
    times = [f"[{clock(s.start_s)} - {clock(s.end_s)}] " if timestamps else "" for s in transcript.segments]
    return "\n".join(time + label + s.text for time, s in zip(times, transcript.segments, strict=True))


def _label(channel: int | None) -> str:
    return "" if channel is None else f"{channel}: "


def _json(transcript: Transcript, name: str, channel: int | None, timestamps: bool) -> str:
    named = {"file": name, **({} if channel is None else {"channel": channel})}
    return json.dumps(named | record(transcript, tokens=timestamps), ensure_ascii=False)


def _tsv(transcript: Transcript, name: str, channel: int | None, timestamps: bool) -> str:
    rows = transcript.tokens if timestamps else transcript.segments
    file = " ".join(name.split()) + ("" if channel is None else f"\t{channel}")
    return "\n".join(f"{file}\t{row.start_s:.3f}\t{row.end_s:.3f}\t{_with_mark(row)}" for row in rows)


def _with_mark(row: Token | Segment) -> str:
    return row.text + row.mark if isinstance(row, Token) else row.text


def _ctm(transcript: Transcript, name: str, channel: int | None, timestamps: bool) -> str:  # noqa: ARG001
    """A line for each word: file, channel, start, duration, word, confidence. Without marks, as scorers want it."""
    file = "_".join(name.split())
    return "\n".join(
        f"{file} {channel or 1} {word.start_s:.3f} {word.end_s - word.start_s:.3f} {word.text} {word.confidence:.4f}"
        for word in spoken_words(transcript.tokens)
    )
