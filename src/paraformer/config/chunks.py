"""How much of a stream is seen at once, in live recognition and in training for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from paraformer.errors import ConfigError
from paraformer.settings import Between, Count, Size, as_whole

Reach = Annotated[int, Between(-1, 1 << 24)]
"""-1: without end."""


@dataclass(frozen=True, kw_only=True)
class TrainingChunk:
    """One chunk setting of FunASR's chunk-masked training, in windows (spec 2.4)."""

    size: Size
    stride: Size
    pad_left: Count = 0
    encoder_look_back: Reach = 4
    decoder_look_back: Reach = 1


LONGEST_VIEW = 60_000
"""Windows: an hour. Memory for a look-back is taken when a session begins."""


@dataclass(frozen=True, kw_only=True)
class ChunkConfig:
    """How a live session cuts its input, in 60 ms windows: FunASR's `chunk_size=[left, chunk, right]`.

    A step commits `chunk` windows, with `left` earlier and `right` later ones in view: a
    sound waits for `chunk + right` windows at most until it is heard.
    Look-backs count chunks of encoder keys and decoder memory kept from earlier steps; -1: unlimited (encoder only).
    """

    left: Count = 5
    chunk: Size = 10
    right: Count = 5
    encoder_look_back: Reach = 0
    decoder_look_back: Reach = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, as_whole(value, f"{name} of a chunk setting"))
        if self.left < 0 or self.chunk < 1 or self.right < 0:
            raise ConfigError(
                f"chunk setting [{self.left}, {self.chunk}, {self.right}] is impossible: "
                "left and right must be at least 0 and chunk at least 1"
            )
        if self.encoder_look_back < -1 or self.decoder_look_back < 0:
            raise ConfigError(
                f"look-back {self.encoder_look_back}/{self.decoder_look_back} is impossible: "
                "the encoder's must be -1 (unlimited) or more, the decoder's 0 or more"
            )
        look_back = self.chunk * max(self.encoder_look_back, self.decoder_look_back)
        longest = max(self.left, self.chunk, self.right, look_back)
        if longest > LONGEST_VIEW:
            raise ConfigError(
                f"chunk setting [{self.left}, {self.chunk}, {self.right}] with look-back {self.encoder_look_back}/"
                f"{self.decoder_look_back} keeps {longest} windows of 60 ms in view; it may be {LONGEST_VIEW}, an hour"
            )

    @property
    def context(self) -> int:
        """Rows carried from one step to the next."""
        return self.left + self.right

    @property
    def rows(self) -> int:
        """Rows of a full step."""
        return self.left + self.chunk + self.right

    @property
    def past_rows(self) -> int:
        """Rows of encoder keys that a stream keeps room for from the start; unlimited look-back grows as it goes.

        The first step's rows are kept whole, even where the look-back is shorter (spec 2.5).
        """
        return max(self.encoder_look_back * self.chunk, self.left + self.chunk) if self.encoder_look_back > 0 else 0
