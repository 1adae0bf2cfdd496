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

import numpy as np
from jaxtyping import Float32

import paraformer
from paraformer.cli.live import PIECE, RATE, decisions
from paraformer.cli.subtitles import columns
from paraformer.errors import AudioError, MissingExtra
from paraformer.session import Session

Samples = Float32[np.ndarray, " samples"]


def mic(options: argparse.Namespace) -> int:
    """Listen until Ctrl-C, then recognise what is left."""
    recognizer = paraformer.load(
        options.model, chunk=options.chunk, precision=options.precision, threads=options.threads, lm=options.lm
    )
    session = recognizer.stream()
    show(session, _microphone(options.device, _first_interrupt()), refresh=sys.stdout.isatty())
    return 0


def show(session: Session, pieces: Iterable[Samples], *, refresh: bool) -> None:
    """Print what the session decides; refresh: keep the last line in view, else print each decision as it comes."""
    for decision in decisions(session, pieces):
        line = "\r\x1b[K" + _tail(session.text, get_terminal_size().columns - 1) if refresh else decision.text
        print(line, end="", flush=True)
    print("\r\x1b[K" + session.text if refresh else "", flush=True)


def _tail(text: str, width: int) -> str:
    """The end of a text that fits a width in columns."""
    while columns(text) > width:
        text = text[1:]
    return text


def _first_interrupt() -> Event:
    """Set by the first Ctrl-C, so that no step is cut short and the rest is still recognised; the second one ends."""
    interrupted = Event()

    def note(*_: object) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    return interrupted


def _microphone(device: str | None, interrupted: Event) -> Iterator[Samples]:
    """Pieces of 600 ms from a microphone (a name or number, None: the system's), until interrupted."""
    try:
        import sounddevice
    except ImportError as error:
        raise MissingExtra("Listening to a microphone", "mic") from error
    except OSError as error:
        raise AudioError("the PortAudio library is missing; on Debian: apt install libportaudio2") from error
    heard: queue.SimpleQueue[Samples] = queue.SimpleQueue()

    def keep(block: np.ndarray, *_: object) -> None:
        heard.put(block[:, 0].copy())

    number = int(device) if device and device.isdigit() else device
    try:
        stream = sounddevice.InputStream(RATE, PIECE, number, channels=1, dtype="float32", callback=keep)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioError(f"no microphone can be opened: {error}") from error
    with stream:
        print("listening; Ctrl-C ends", file=sys.stderr)
        while not interrupted.is_set():
            with suppress(queue.Empty):
                yield heard.get(timeout=0.2)
