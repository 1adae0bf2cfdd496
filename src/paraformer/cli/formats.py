"""A transcript as text, JSON line, SubRip, WebVTT or tab-separated values. Each ends without a line break."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from paraformer.cli.subtitles import Cue, cues
from paraformer.types import Token, Transcript

Heard = Transcript | list[Transcript]
"""What was heard of an input, or of each of its channels."""
SUFFIXES = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt", "tsv": ".tsv"}


def render(heard: Heard, form: str, *, name: str, timestamps: bool) -> str:
    """The transcript of the input called `name`, in one of the forms of SUFFIXES.

    Of a list, one for each channel, all that is said goes into one text: in subtitles in the order of time, else
    channel after channel; each line says which channel it is of.
    """
    channels = dict(enumerate(heard, 1)) if isinstance(heard, list) else {None: heard}
    if form in ("srt", "vtt"):
        lines = [
            replace(cue, text=_label(channel) + cue.text) for channel, one in channels.items() for cue in cues(one)
        ]
        return (_srt if form == "srt" else _vtt)(sorted(lines, key=lambda cue: cue.start_s))
    write = {"text": _text, "json": _json, "tsv": _tsv}[form]
    return "\n".join(write(one, name, channel, timestamps) for channel, one in channels.items())


def _text(transcript: Transcript, name: str, channel: int | None, timestamps: bool) -> str:  # noqa: ARG001
    """A line for each segment: a viewer can read an hour of them."""
    label = _label(channel)
    if not transcript.segments:
        return label.rstrip()
    times = [f"[{_clock(s.start_s)} - {_clock(s.end_s)}] " if timestamps else "" for s in transcript.segments]
    return "\n".join(time + label + s.text for time, s in zip(times, transcript.segments, strict=True))


def _label(channel: int | None) -> str:
    return "" if channel is None else f"{channel}: "


def _json(transcript: Transcript, name: str, channel: int | None, timestamps: bool) -> str:
    segments = [
        {"text": segment.text, "start_s": segment.start_s, "end_s": segment.end_s}
        | ({"tokens": [described(token) for token in segment.tokens]} if timestamps else {})
        for segment in transcript.segments
    ]
    result = {
        "file": name,
        **({} if channel is None else {"channel": channel}),
        "text": transcript.text,
        "duration_s": transcript.duration_s,
        "confidence": transcript.confidence,
        "segments": segments,
    }
    return json.dumps(rounded(result), ensure_ascii=False)


def described(token: Token) -> dict[str, Any]:
    """Plain values; of alternatives only where there are any."""
    values = asdict(token)
    if not token.alternatives:
        del values["alternatives"]
    return values


def rounded(value: object) -> object:
    """Numbers to four places: a tenth of a millisecond is enough, and lines stay readable."""
    match value:
        case float():
            return round(value, 4)
        case dict():
            return {key: rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [rounded(item) for item in value]
        case _:
            return value


def _srt(lines: Sequence[Cue]) -> str:
    return "\n\n".join(f"{n}\n{_span(cue, ',')}\n{cue.text}" for n, cue in enumerate(lines, 1))


def _vtt(lines: Sequence[Cue]) -> str:
    blocks = (f"{_span(cue, '.')}\n{html.escape(cue.text, quote=False)}" for cue in lines)
    return "\n\n".join(["WEBVTT", *blocks])


def _tsv(transcript: Transcript, name: str, channel: int | None, timestamps: bool) -> str:
    rows = transcript.tokens if timestamps else transcript.segments
    file = " ".join(name.split()) + ("" if channel is None else f"\t{channel}")
    return "\n".join(f"{file}\t{row.start_s:.3f}\t{row.end_s:.3f}\t{row.text}" for row in rows)


def _span(cue: Cue, point: str) -> str:
    return f"{_clock(cue.start_s, point)} --> {_clock(cue.end_s, point)}"


def _clock(seconds: float, point: str = ".") -> str:
    minutes, ms = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{ms // 1000:02}{point}{ms % 1000:03}"
