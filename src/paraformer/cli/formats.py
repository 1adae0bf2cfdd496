"""A transcript as text, JSON line, SubRip, WebVTT, tab-separated values, CTM, RTTM or TextGrid.

Each ends without a line break.
"""

from __future__ import annotations

import json
from dataclasses import replace

from paraformer.cli.intervals import spoken_turns, spoken_words, textgrid
from paraformer.records import record
from paraformer.subtitles import clock, cues, srt, vtt
from paraformer.subtitles import label as speaker_label
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
    "rttm": ".rttm",
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
    write = {"text": _text, "json": _json, "tsv": _tsv, "ctm": _ctm, "rttm": _rttm}[form]
    return "\n".join(write(one, name, channel, timestamps) for channel, one in channels.items())


def _text(transcript: Transcript, name: str, channel: int | None, timestamps: bool) -> str:  # noqa: ARG001
    """A line for each segment, or each speaker's part of one: a viewer can read an hour of them."""
    said = spoken_turns(transcript)
    lines = [(turn.start_s, turn.end_s, f"{speaker_label(turn.speaker)}: {turn.text}") for turn in said]
    lines = lines or [(one.start_s, one.end_s, one.text) for one in transcript.segments]
    if not lines:
        return _label(channel).rstrip()
    times = [f"[{clock(start_s)} - {clock(end_s)}] " if timestamps else "" for start_s, end_s, _ in lines]
    return "\n".join(time + _label(channel) + text for time, (_, _, text) in zip(times, lines, strict=True))


def _label(channel: int | None) -> str:
    return "" if channel is None else f"{channel}: "


def _json(transcript: Transcript, name: str, channel: int | None, timestamps: bool) -> str:
    named = {"file": name, **({} if channel is None else {"channel": channel})}
    return json.dumps(named | record(transcript, tokens=timestamps), ensure_ascii=False)


def _tsv(transcript: Transcript, name: str, channel: int | None, timestamps: bool) -> str:
    rows = transcript.tokens if timestamps else transcript.segments
    file = " ".join(name.split()) + ("" if channel is None else f"\t{channel}")
    return "\n".join(
        f"{file}\t{row.start_s:.3f}\t{row.end_s:.3f}\t{_with_mark(row)}"
        + (f"\t{speaker_label(row.speaker)}" if isinstance(row, Token) and row.speaker is not None else "")
        for row in rows
    )


def _with_mark(row: Token | Segment) -> str:
    return row.text + row.mark if isinstance(row, Token) else row.text


def _ctm(transcript: Transcript, name: str, channel: int | None, timestamps: bool) -> str:  # noqa: ARG001
    """A line for each word: file, channel, start, duration, word, confidence. Without marks, as scorers want it.

    Where speakers are told apart, the kind of word and who says it follow, as NIST has them.
    """
    file = "_".join(name.split())
    return "\n".join(
        f"{file} {channel or 1} {word.start_s:.3f} {word.end_s - word.start_s:.3f} {word.text} {word.confidence:.4f}"
        + ("" if word.speaker is None else f" lex {speaker_label(word.speaker)}")
        for word in spoken_words(transcript.tokens)
    )


def _rttm(transcript: Transcript, name: str, channel: int | None, timestamps: bool) -> str:  # noqa: ARG001
    """A line for each turn, as NIST has them: who speaks from when for how long; none where nobody asked."""
    file = "_".join(name.split())
    return "\n".join(
        f"SPEAKER {file} {channel or 1} {turn.start_s:.3f} {turn.end_s - turn.start_s:.3f} <NA> <NA> "
        f"{speaker_label(turn.speaker)} <NA> <NA>"
        for turn in spoken_turns(transcript)
    )
