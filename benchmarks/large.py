"""Make a random model of the large published shape: 50 encoder and 16 decoder blocks, 220 million parameters.

    python benchmarks/large.py runs/large-random

Its texts mean nothing; its cost is that of the published models. Tokens fire at about 4.4 per second of speech, as in
read Mandarin, so that the decoder has its usual work. Needs the extra [export]; writes 0.9 GB.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch

from paraformer.bundle import Bundle
from paraformer.checkpoint import native
from paraformer.config import ChunkConfig, ModelConfig, SanmDecoderConfig
from paraformer.export import export
from paraformer.frontend import Cmvn
from paraformer.model.paraformer import Paraformer

VOCAB_SIZE = 8404
FIRE_WEIGHT = 0.24
"""Mean CIF weight of a 60 ms window: 0.24 / 0.06 s, and the tail, make about 4.4 tokens a second."""
SEED = 1


def large() -> ModelConfig:
    """The shape of Paraformer-large for live recognition; whole recognition costs the same in its offline twin."""
    return ModelConfig(vocab_size=VOCAB_SIZE, decoder=SanmDecoderConfig(shift=5), live=ChunkConfig())


def make(config: ModelConfig, directory: Path) -> None:
    """Write a random model of this shape as a bundle with its graphs."""
    torch.manual_seed(SEED)
    model = Paraformer(config).eval()
    with torch.no_grad():
        model.predictor.output.weight.mul_(0.5)
        model.predictor.output.bias.fill_(math.log(FIRE_WEIGHT / (1 - FIRE_WEIGHT)))
    bundle = Bundle(None, config, tokens(config.vocab_size), cmvn(config.frontend.input_dim))
    native.save(bundle, model, directory)
    export(model, directory)
    bundle.save(directory)  # again, so that the checksums cover the graphs


def tokens(size: int) -> tuple[str, ...]:
    """A vocabulary of made-up content: mostly single characters, some pieces of English words."""
    pieces = [f"q{index}@@" for index in range(size // 8)]
    characters = [chr(0x4E00 + index) for index in range(size - len(pieces) - 4)]
    return ("<blank>", "<s>", "</s>", *characters, *pieces, "<unk>")


def cmvn(dim: int) -> Cmvn:
    """Statistics near those of speech."""
    return Cmvn(np.full(dim, -12.0, np.float32), np.full(dim, 0.18, np.float32))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Make a large model with random weights.")
    parser.add_argument("directory", type=Path)
    make(large(), parser.parse_args().directory)


if __name__ == "__main__":
    main()
