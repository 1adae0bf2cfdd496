"""Simulated rooms: the echoes between the walls of a box, by pyroomacoustics' image sources.

Each call draws a room of its own, in about 7 ms: 0.5 ms for a second of speech if every third utterance is in a room.
lhotse's generator (FRA-RIR) is not taken: it needs torchaudio and draws from torch's global generator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Float32

from paraformer.audio import Samples
from paraformer.errors import MissingExtra

Response = Float32[np.ndarray, "response"]

SMALLEST_M, LARGEST_M = np.array([2.5, 2.5, 2.3]), np.array([10.0, 8.0, 3.8])
"""Length, width and height."""
_FROM_WALLS_M = 0.3
_ORDER = 17
"""Reflections followed: enough for the first 25 dB of the slowest echo, which is where words smear."""
_SABINE = 0.161
"""Seconds per metre: echo time = _SABINE * volume / (surface * absorption)."""
_RATE = 16000


def require_rooms() -> None:
    """Import what `in_room` needs, before worker processes are made. Raises MissingExtra if it is not installed."""
    try:
        import pyroomacoustics  # noqa: F401
    except ImportError as error:
        raise MissingExtra("Simulating rooms", "train") from error


def in_room(samples: Samples, echo_s: float, rng: np.random.Generator) -> Samples:
    """`samples` as heard in a random place of a random room, with their length, start and power kept."""
    heard = convolved(samples, room_response(echo_s, rng))
    power = float(np.mean(np.square(heard)))
    return heard * np.float32(np.sqrt(np.mean(np.square(samples)) / power)) if power > 0 else samples


def room_response(echo_s: float, rng: np.random.Generator) -> Response:
    """What a click sounds like in a random room, from the arrival of its direct sound, which is 1.

    echo_s: time in which the echo falls by 60 dB, by Sabine's formula; no drier than walls that absorb nearly all.
    """
    import pyroomacoustics

    size = rng.uniform(SMALLEST_M, LARGEST_M)
    mouth, ear = (rng.uniform(_FROM_WALLS_M, size - _FROM_WALLS_M) for _ in range(2))
    surface = 2 * (size[0] * size[1] + size[1] * size[2] + size[2] * size[0])
    absorption = min(0.95, _SABINE * float(np.prod(size)) / (surface * echo_s))
    room = pyroomacoustics.ShoeBox(
        size, fs=_RATE, materials=pyroomacoustics.Material(absorption), max_order=_ORDER, sources=[], mics=None
    )
    room.add_source(mouth)
    room.add_microphone(ear)
    with _one_thread(pyroomacoustics):
        room.compute_rir()
    distance = float(np.linalg.norm(mouth - ear))
    delay = distance / pyroomacoustics.constants.get("c") * _RATE
    arrival = round(delay) + pyroomacoustics.constants.get("frac_delay_length") // 2
    response: Response = (room.rir[0][0][arrival:] * distance).astype(np.float32)
    return response


@contextmanager
def _one_thread(pyroomacoustics: object) -> Iterator[None]:
    """The order of sums, and so the last bits, depend on the number of threads; loaders have processes anyway."""
    constants = pyroomacoustics.constants  # type: ignore[attr-defined]
    before = constants.get("num_threads")
    constants.set("num_threads", 1)
    try:
        yield
    finally:
        constants.set("num_threads", before)


def convolved(samples: Samples, response: Response) -> Samples:
    """The convolution of both, as long as `samples`."""
    size = 1 << (len(samples) + len(response) - 1).bit_length()
    product = np.fft.rfft(samples, size) * np.fft.rfft(response, size)
    return np.fft.irfft(product, size)[: len(samples)].astype(np.float32)
