"""Live steps against the reference's numbers, one by one: rows, weights, embeddings, tokens and what is carried on."""

from __future__ import annotations

import pytest
import torch
from model_goldens import GOLDEN, close, golden, golden_model
from torch import Tensor

from paraformer.config import ChunkConfig
from paraformer.model.paraformer import Paraformer, ParaformerState, StepOutput

STREAMS = sorted(path.stem for path in GOLDEN.glob("stream_*.npz"))


def chunk_of(arrays: dict[str, Tensor]) -> ChunkConfig:
    """The chunk setting of a fixture."""
    left, chunk, right = arrays["chunk_size"].tolist()
    encoder, decoder = arrays["look_back"].tolist()
    return ChunkConfig(left=left, chunk=chunk, right=right, encoder_look_back=encoder, decoder_look_back=decoder)


def windows_of(samples: int) -> Tensor:
    """Normalised windows (T, 560) of the first `samples` of the golden wave, made from its golden fbank (spec 1.3)."""
    arrays = golden("frontend_offline")
    fbank, whole = arrays["fbank"][: 1 + (samples - 400) // 160], arrays["lfr"]
    padded = torch.cat([fbank[:1].expand(3, -1), fbank])
    rows = -(-fbank.shape[0] // 6)
    index = (6 * torch.arange(rows)[:, None] + torch.arange(7)).clamp(max=padded.shape[0] - 1)
    stacked = padded[index].flatten(1)
    high, low = whole.max(0), whole.min(0)
    scale = (arrays["feats"].gather(0, high.indices[None]) - arrays["feats"].gather(0, low.indices[None]))[0]
    return (stacked - whole[0]) * (scale / (high.values - low.values)) + arrays["feats"][0]


def check_output(output: StepOutput, arrays: dict[str, Tensor], step: str) -> None:
    """Rows, weights and tokens of one step."""
    close(output.hidden, arrays[f"{step}encoder_out"], 1e-5)
    close(output.raw_weights, arrays[f"{step}alphas_raw"], 1e-5)
    assert output.counts.tolist() == arrays[f"{step}n_tokens"].tolist()
    if output.counts > 0:
        close(output.embeds, arrays[f"{step}acoustic_embeds"], 1e-5)
        close(output.logits, arrays[f"{step}logits"], 1e-4)
        assert output.logits.argmax(-1).equal(arrays[f"{step}token_ids"])


def check_state(
    model: Paraformer, state: ParaformerState, chunk: ChunkConfig, arrays: dict[str, Tensor], step: str
) -> None:
    """What is carried to the next step, in the reference's terms."""
    assert state.position.tolist() == [arrays[f"{step}start_idx_after"].item()]
    close(state.weight, arrays[f"{step}cif_alpha_after"][0], 1e-5)
    close(state.vector, arrays[f"{step}cif_hidden_after"][0], 1e-5)
    if f"{step}overlap_cache_after" in arrays:
        embedded = model.encoder.embed(state.overlap, state.position - chunk.context + 1)
        close(embedded, arrays[f"{step}overlap_cache_after"], 1e-4)
    if f"{step}enc_k_cache_layer1" in arrays:
        kept = state.keys[:, 1, state.keys.shape[2] - int(state.past_lengths) :]
        close(kept, arrays[f"{step}enc_k_cache_layer1"].transpose(1, 2).flatten(2), 1e-5)
    if f"{step}dec_k_cache_layer0" in arrays:
        rows = state.memory[:, state.memory.shape[1] - int(state.memory_lengths) :]
        keys = model.decoder.blocks[0].cross.kv(rows).chunk(2, -1)[0]
        close(keys, arrays[f"{step}dec_k_cache_layer0"].transpose(1, 2).flatten(2), 1e-5)
    if f"{step}dec_fsmn_cache_layer0" in arrays:
        close(state.fsmn[:, 0], arrays[f"{step}dec_fsmn_cache_layer0"][..., -10:].transpose(1, 2), 1e-5)


@pytest.mark.parametrize("name", STREAMS)
@torch.no_grad()
def test_stream(name: str) -> None:
    arrays, model = golden(name), golden_model("online")
    chunk = chunk_of(arrays)
    feats = windows_of(int(arrays["deliver"].sum()))[None]
    state, begin = model.init_state(1, chunk), 0
    for index in range(int(arrays["n_steps"])):
        step = f"s{index}__"
        end = begin if arrays[f"{step}tail_chunk"] else int(arrays[f"{step}start_idx_after"])
        frames, final = feats[:, begin:end], arrays[f"{step}is_final"].bool()[None]
        if f"{step}feats" in arrays and end > begin:
            close(frames, arrays[f"{step}feats"], 1e-5)
        output, state = model.step(frames, torch.tensor([end - begin]), final, state, chunk)
        check_output(output, arrays, step)
        if not final:
            check_state(model, state, chunk, arrays, step)
        begin = end


def test_there_are_streams() -> None:
    assert len(STREAMS) == 8
