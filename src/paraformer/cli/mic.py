"""`paraformer mic`: live recognition from a microphone, the current line refreshed in place."""

from __future__ import annotations

import argparse
import queue
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from shutil import get_terminal_size
from threading import Event
from typing import Any

import numpy as np

import paraformer
from paraformer.audio import SAMPLE_RATE, Samples
from paraformer.cli.live import PIECE, decisions
from paraformer.cli.options import loading
from paraformer.errors import AudioError, MissingExtra
from paraformer.session import Session
from paraformer.subtitles import columns

_WIDEST = 1000
"""Characters, more than stand in a line of any terminal."""


def mic(options: argparse.Namespace) -> int:
    """Listen until Ctrl-C, then recognise what is left."""
    recognizer = paraformer.load(
        options.model,
        chunk=options.chunk,
        **{name: value for name, value in loading(options).items() if name != "device"},  # of the microphone
    )
    rate, pieces = _microphone(options.device, _first_interrupt())
    session = recognizer.stream() if rate == SAMPLE_RATE else recognizer.stream(rate=rate)
    show(session, pieces, refresh=sys.stdout.isatty(), rate=rate)
    return 0


def show(session: Session, pieces: Iterable[Samples], *, refresh: bool, rate: int = SAMPLE_RATE) -> None:
    """Print what the session decides; refresh: keep the last line in view, else print each decision as it comes."""
    recent = ""
    for decision in decisions(session, pieces, rate):
        recent = (recent + decision.text)[-_WIDEST:]
        line = "\r\x1b[K" + _tail(recent, get_terminal_size().columns - 1) if refresh else decision.text
        print(line, end="", flush=True)
    print("\r\x1b[K" + session.text if refresh else "", flush=True)


def _tail(text: str, width: int) -> str:
    """The end of a text that fits a width in columns."""
    kept, room = len(text), width
    while kept and (room := room - columns(text[kept - 1])) >= 0:
        kept -= 1
    return text[kept:]


def _first_interrupt() -> Event:
    """Set by the first Ctrl-C, so that no step is cut short and the rest is still recognised; the second one ends."""
    interrupted = Event()

    def note(*_: object) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    return interrupted


def _microphone(device: str | None, interrupted: Event) -> tuple[int, Iterator[Samples]]:
    """A microphone's rate, and pieces of 600 ms from it, until interrupted. device: name or number; None: the system's.

    One that has no 16 kHz is heard at its own rate.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise MissingExtra("Listening to a microphone", "mic") from error
    except OSError as error:
        raise AudioError("the PortAudio library is missing; on Debian: apt install libportaudio2") from error
    heard: queue.SimpleQueue[Samples] = queue.SimpleQueue()
    number = int(device) if device and device.isdigit() else device
    try:
        try:
            return SAMPLE_RATE, _pieces(_input(sounddevice, number, SAMPLE_RATE, heard), heard, interrupted)
        except sounddevice.PortAudioError:
            rate = round(sounddevice.query_devices(number, "input")["default_samplerate"])
            if rate == SAMPLE_RATE:
                raise
            return rate, _pieces(_input(sounddevice, number, rate, heard), heard, interrupted)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioError(f"no microphone can be opened: {error}") from error


def _input(sounddevice: Any, device: int | str | None, rate: int, heard: queue.SimpleQueue[Samples]) -> Any:
    """A stream that puts what it hears into the queue, 600 ms at a time."""

    def keep(block: np.ndarray, *_: object) -> None:
        heard.put(block[:, 0].copy())

    size = rate * PIECE // SAMPLE_RATE
    return sounddevice.InputStream(rate, size, device, channels=1, dtype="float32", callback=keep)


def _pieces(stream: Any, heard: queue.SimpleQueue[Samples], interrupted: Event) -> Iterator[Samples]:
    with stream:
        print("listening; Ctrl-C ends", file=sys.stderr)
        while not interrupted.is_set():
            with suppress(queue.Empty):
                yield heard.get(timeout=0.2)
