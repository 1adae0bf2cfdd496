"""What the golden tests of the model share: fixtures as tensors, the golden models, and the reference's own quirks.

The quirks are the places where the model does the right thing instead (spec 3.1, 3.2): rows past the end of an
utterance leak into its last token, and rounding can lose the last token of a training target.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from paraformer.checkpoint import funasr_config
from paraformer.checkpoint.keys import funasr_names
from paraformer.config import ConformerEncoderConfig, TrainingChunk
from paraformer.model.chunk_masks import ChunkLayout, chunk_layout
from paraformer.model.encoded import Chunking, Encoded
from paraformer.model.layers import length_mask
from paraformer.model.paraformer import Paraformer

GOLDEN = Path(__file__).parent / "golden"

CHUNKS = (TrainingChunk(size=12, stride=8), TrainingChunk(size=15, stride=10))


def golden(name: str) -> dict[str, Tensor]:
    """The arrays of a fixture, float32 and int64."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: tensor(arrays[key]) for key in arrays.files if arrays[key].dtype.kind in "if"}


def tensor(array: np.ndarray) -> Tensor:
    """As float32 or int64."""
    return torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))


@cache
def golden_model(name: str) -> Paraformer:
    """A golden model with its weights, in evaluation mode. Shared: leave no gradients on it."""
    settings = json.loads((GOLDEN / f"{name}.config.json").read_text())
    model = Paraformer(funasr_config.read(settings, vocab_size=50))
    model.load_state_dict(our_names(load_file(GOLDEN / f"{name}.safetensors"), model))
    return model.eval()


def our_names(tensors: dict[str, Tensor], model: Paraformer) -> dict[str, Tensor]:
    """Tensors named by FunASR's parameter names, under ours."""
    ours = {theirs: name for name, theirs in funasr_names(model.config, model.state_dict()).items()}
    return {ours[name]: value for name, value in tensors.items()}


def batch_feats() -> tuple[Tensor, Tensor]:
    """The batch of two that every 560-dim golden is about: feats (2, 59, 560), lengths [59, 31]."""
    arrays = golden("frontend_offline")
    return arrays["batch_feats"], arrays["batch_lens"]


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Same shape, and equal within an absolute tolerance."""
    torch.testing.assert_close(actual.detach(), expected, rtol=0.0, atol=tolerance)


# -- the reference's quirks -------------------------------------------------------------------------------------------


def leaky_encode(model: Paraformer, feats: Tensor, lengths: Tensor, chunk: Chunking = None) -> Encoded:
    """As model.encode, but rows past each length keep what the encoder left there, and the predictor sees it."""
    if isinstance(chunk, TrainingChunk):
        return _leaky_chunk_masked(model, feats, lengths, chunk)
    if isinstance(model.config.encoder, ConformerEncoderConfig):
        hidden, lengths = model.encoder(feats, lengths, padding_leaks=True)
    else:
        mask = length_mask(lengths, feats.shape[1])
        hidden, _, _ = model.encoder.run(model.encoder.embed(feats), mask[:, None], mask)
    return Encoded(hidden, model.predictor(hidden, length_mask(lengths, hidden.shape[1])), lengths)


def _leaky_chunk_masked(model: Paraformer, feats: Tensor, lengths: Tensor, chunk: TrainingChunk) -> Encoded:
    """The chunk-masked form, in which only the gaps are zeroed."""
    hidden, layout = leaky_chunk_masked_rows(model, feats, lengths, chunk)
    hidden = hidden * layout.filled[:, None]
    weights = model.predictor(hidden, layout.kept & layout.present())
    return Encoded(hidden, weights, layout.lengths, layout=layout)


def leaky_chunk_masked_rows(
    model: Paraformer, feats: Tensor, lengths: Tensor, chunk: TrainingChunk
) -> tuple[Tensor, ChunkLayout]:
    """The encoder's rows as they come out of it, gaps and padding included."""
    layout = chunk_layout(lengths, chunk, 5)
    embedded = layout.split(model.encoder.embed(feats) * length_mask(lengths, feats.shape[1])[..., None])
    seen = layout.attention_mask() & layout.present()[:, None]
    hidden, _, _ = model.encoder.run(embedded, seen, layout.filled & layout.present())
    return hidden, layout


def closed_form_integrate(hidden: Tensor, weights: Tensor, tokens: int) -> Tensor:
    """The reference's `cif_v1`: prefix sums at the frames where the float32 running sum passes a whole number."""
    sums = weights.double().cumsum(-1).float()
    floors = sums.floor()
    fires = floors > torch.nn.functional.pad(floors, (1, 0))[:, :-1]
    prefix = (weights[..., None] * hidden).cumsum(1) - (sums - floors)[..., None] * hidden
    rows = [torch.cat([p.new_zeros(1, p.shape[1]), p[f]]).diff(dim=0) for p, f in zip(prefix, fires, strict=True)]
    return torch.stack([torch.nn.functional.pad(row, (0, 0, 0, tokens - row.shape[0])) for row in rows])


def loop_integrate(hidden: Tensor, weights: Tensor, tokens: int) -> Tensor:
    """The reference's `cif`: accumulate frame by frame, fire at 1."""
    rows = []
    for frames, alphas in zip(hidden, weights, strict=True):
        total, vector, fired = alphas.new_zeros(()), frames.new_zeros(frames.shape[1]), []
        for frame, alpha in zip(frames, alphas, strict=True):
            if total + alpha < 1:
                total, vector = total + alpha, vector + alpha * frame
                continue
            fired.append(vector + (1 - total) * frame)
            total = total + alpha - 1
            vector = total * frame
        fired += [frames.new_zeros(frames.shape[1])] * (tokens - len(fired))
        rows.append(torch.stack(fired))
    return torch.stack(rows)


def reference_firing_frames(weights: Tensor, counts: Tensor, ends: Tensor) -> Tensor:
    """The reference's alignment (spec 4.5): from a float32 sum; a token lost to rounding goes to the last column.

    weights (B, T or T + 1), counts (B,), ends (B,): columns of each row, tail included. Returns (B, L).
    """
    sums = weights.cumsum(-1).floor()
    tokens = torch.arange(1, int(counts.max()) + 1, dtype=sums.dtype)
    frames = torch.searchsorted(sums, tokens.repeat(sums.shape[0], 1)).clamp(max=int(ends.max()) - 1)
    lost = (frames >= ends[:, None]) | (tokens > counts[:, None])
    return torch.where(lost, weights.shape[1] - 1, frames)
