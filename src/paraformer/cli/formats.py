"""A transcript as text, JSON line, SubRip, WebVTT or tab-separated values. Each ends without a line break."""

from __future__ import annotations

import html
import json
from dataclasses import asdict

from paraformer.cli.subtitles import Cue, cues
from paraformer.types import Transcript

SUFFIXES = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt", "tsv": ".tsv"}


def render(transcript: Transcript, form: str, *, name: str, timestamps: bool) -> str:
    """The transcript of the input called `name`, in one of the forms of SUFFIXES."""
    match form:
        case "text":
            return _text(transcript, timestamps)
        case "json":
            return _json(transcript, name, timestamps)
        case "srt":
            return _srt(transcript)
        case "vtt":
            return _vtt(transcript)
        case _:
            return _tsv(transcript, name, timestamps)


def _text(transcript: Transcript, timestamps: bool) -> str:
    """A line for each segment: a viewer can read an hour of them."""
    if not timestamps:
        return "\n".join([segment.text for segment in transcript.segments])
    return "\n".join(f"[{_clock(s.start_s)} - {_clock(s.end_s)}] {s.text}" for s in transcript.segments)


def _json(transcript: Transcript, name: str, timestamps: bool) -> str:
    segments = [asdict(segment) for segment in transcript.segments]
    for segment in segments:
        if not timestamps:
            del segment["tokens"]
    result = {
        "file": name,
        "text": transcript.text,
        "duration_s": transcript.duration_s,
        "confidence": transcript.confidence,
        "segments": segments,
    }
    return json.dumps(rounded(result), ensure_ascii=False)


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


def _srt(transcript: Transcript) -> str:
    return "\n\n".join(f"{n}\n{_span(cue, ',')}\n{cue.text}" for n, cue in enumerate(cues(transcript), 1))


def _vtt(transcript: Transcript) -> str:
    blocks = (f"{_span(cue, '.')}\n{html.escape(cue.text, quote=False)}" for cue in cues(transcript))
    return "\n\n".join(["WEBVTT", *blocks])


def _tsv(transcript: Transcript, name: str, timestamps: bool) -> str:
    rows = transcript.tokens if timestamps else transcript.segments
    file = " ".join(name.split())
    return "\n".join(f"{file}\t{row.start_s:.3f}\t{row.end_s:.3f}\t{row.text}" for row in rows)


def _span(cue: Cue, point: str) -> str:
    return f"{_clock(cue.start_s, point)} --> {_clock(cue.end_s, point)}"


def _clock(seconds: float, point: str = ".") -> str:
    minutes, ms = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{ms // 1000:02}{point}{ms % 1000:03}"
