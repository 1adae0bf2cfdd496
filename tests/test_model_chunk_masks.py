from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_goldens import golden

from paraformer.config import TrainingChunk
from paraformer.model.chunk_masks import ChunkLayout, chunk_layout, scama_mask
from paraformer.model.layers import length_mask

SETTINGS = {
    "ind0": TrainingChunk(size=12, stride=8),
    "ind1": TrainingChunk(size=15, stride=10),
    "padleft5": TrainingChunk(size=20, stride=10, pad_left=5, encoder_look_back=1),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_golden(name: str) -> None:
    arrays, chunk = golden("chunk_masks"), SETTINGS[name]
    expected = {key.removeprefix(f"{name}__"): value for key, value in arrays.items() if key.startswith(name)}
    layout = chunk_layout(expected["x_len"], chunk, 5)
    columns = torch.arange(expected["x_add_mask"].shape[1])
    shown = ((layout.source + chunk.pad_left)[:, None] == columns) & layout.filled[:, None]
    kept = layout.home[:, None] == torch.arange(layout.source.shape[0])
    assert layout.lengths.equal(expected["x_len_chunk"])
    assert shown.long().equal(expected["x_add_mask"])
    assert kept.long().equal(expected["x_rm_mask"])
    assert layout.filled[:, None].long().equal(expected["mask_shfit_chunk"])
    assert layout.filled[:, None].long().equal(expected["mask_shift_att_chunk_decoder"])
    assert layout.kept[:, None].long().equal(expected["mask_chunk_predictor"])
    assert layout.attention_mask().long().equal(expected["mask_att_chunk_encoder"])


@st.composite
def layouts(draw: st.DrawFn) -> tuple[torch.Tensor, ChunkLayout]:
    """Lengths of a batch and their layout."""
    stride, pad_left, ahead = draw(st.integers(1, 6)), draw(st.integers(0, 3)), draw(st.integers(0, 4))
    chunk = TrainingChunk(size=pad_left + stride + ahead, stride=stride, pad_left=pad_left)
    lengths = torch.tensor(draw(st.lists(st.integers(0, 25), min_size=1, max_size=3).filter(any)))
    return lengths, chunk_layout(lengths, chunk, draw(st.integers(0, 5)))


@given(drawn=layouts())
def test_every_window_is_kept_once(drawn: tuple[torch.Tensor, ChunkLayout]) -> None:
    lengths, layout = drawn
    windows = torch.arange(int(lengths.max()))
    assert layout.source[layout.home].equal(windows)
    assert layout.join(layout.split(windows[None, :, None].float()))[0, :, 0].equal(windows.float())
    assert (layout.kept & layout.present()).sum(-1).equal(lengths)


@given(drawn=layouts())
def test_attention_is_causal_over_segments_and_never_enters_a_gap(drawn: tuple[torch.Tensor, ChunkLayout]) -> None:
    _, layout = drawn
    seen = layout.attention_mask()
    assert not seen[~layout.filled].any()
    assert not seen[:, ~layout.filled].any()
    assert not seen[layout.segments[:, None] < layout.segments[None]].any()
    assert seen.diagonal()[layout.filled].all()


@given(drawn=layouts(), data=st.data())
def test_every_token_sees_the_row_it_fires_in(drawn: tuple[torch.Tensor, ChunkLayout], data: st.DataObject) -> None:
    lengths, layout = drawn
    counts = torch.tensor([data.draw(st.integers(0, int(length))) for length in lengths])
    tokens = max(int(counts.max()), 1)
    rows = [(layout.kept & present).nonzero().flatten() for present in layout.present()]
    fired = torch.stack([torch.nn.functional.pad(row, (0, tokens))[:tokens] for row in rows])
    mask = scama_mask(fired, length_mask(counts, tokens), layout)
    for row, count in enumerate(counts.tolist()):
        assert mask[row].gather(1, fired[row][:, None])[:count].all()
        assert not mask[row, count:].any()
        assert not mask[row][:, ~(layout.present()[row] & layout.filled)].any()
