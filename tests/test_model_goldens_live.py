"""Live steps against the reference's numbers, one by one: rows, weights, embeddings, tokens and what is carried on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_goldens import GOLDEN, close, golden, golden_model
from torch import Tensor
from torch.nn import functional as F

from paraformer.config import ChunkConfig, FrontendConfig
from paraformer.frontend import Cmvn, Frontend
from paraformer.model import cif
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


# -- FunASR's own runtime ---------------------------------------------------------------------------------------------

RUNS = ("5_10_5__56100", "5_10_5__19900", "5_10_5__14600", "5_10_5__11600", "8_8_4__56100")


RUNTIME_ROWS, RUNTIME_EMBEDS = 2e-5, 3e-5
"""The runtime's own arithmetic: its encoder rows are 1.6e-5 from what float64 gives, ours and the reference's 3e-6."""


def runtime_windows(samples: int) -> Tensor:
    """Windows (T, 560) of the first `samples` of the golden wave, from the fbank library that the runtime uses."""
    with np.load(GOLDEN / "frontend_offline.npz") as arrays:
        wave = arrays["wav_int16"][:samples].astype(np.float32) / 32768
    cmvn = Cmvn.parse((GOLDEN / "am.mvn").read_text())
    return torch.from_numpy(Frontend(FrontendConfig(), cmvn).whole(wave))


def runtime_rows(model: Paraformer, chunk: ChunkConfig, samples: int) -> list[Tensor]:
    """The embedded rows of each encoder run of FunASR's ONNX runtime (spec 7.5).

    Where the last call brings more than one chunk can commit, the runtime runs twice and shows some rows twice.
    """
    whole = model.encoder.embed(runtime_windows(samples)[None])
    calls, rest = divmod(samples, chunk.chunk * 960)
    rows = F.pad(whole[:, : calls * chunk.chunk], (0, 0, chunk.context, 0))
    last = whole[:, calls * chunk.chunk :] if rest >= 960 else whole[:, :0]
    runs = [rows[:, begin : begin + chunk.rows] for begin in range(0, calls * chunk.chunk, chunk.chunk)]
    overlap = torch.cat([rows[:, rows.shape[1] - chunk.context :], last], 1)
    late = last.shape[1] + chunk.right - chunk.chunk
    if late <= 0:
        return [*runs, overlap]
    first = F.pad(overlap, (0, 0, 0, chunk.rows - overlap.shape[1]))
    return [*runs, first, torch.cat([overlap[:, overlap.shape[1] - chunk.left :], last[:, -late:]], 1)]


@pytest.mark.parametrize("run", RUNS)
@torch.no_grad()
def test_runtime(run: str) -> None:
    """The parts of a live step on the rows that the runtime shows them: no look-back, edges without weight."""
    arrays, model = golden("onnx_stream"), golden_model("online")
    left, middle, right = (int(size) for size in run.split("__")[0].split("_"))
    chunk = ChunkConfig(left=left, chunk=middle, right=right)
    _, carry, decoder = model.init_state(1, chunk).split()
    runs = runtime_rows(model, chunk, int(run.split("__")[1]))
    assert len(runs) == int(arrays[f"{run}__steps_per_call"].sum())
    for index, rows in enumerate(runs):
        step = f"{run}__s{index}__"
        hidden, _, _ = model.encoder.run(rows)
        raw = model.predictor(hidden)
        row = torch.arange(rows.shape[1])
        weights = raw * ((row >= left) & (row < left + middle))
        summed = (hidden, weights)
        if arrays[f"{step}last_chunk"]:
            summed = model.predictor.add_tail(hidden, weights, torch.tensor([rows.shape[1]]))
        embeds, counts, carry = cif.step(*summed, carry)
        logits, _, decoder = model.decoder.step(hidden, torch.ones_like(raw, dtype=torch.bool), embeds, counts, decoder)
        close(hidden, arrays[f"{step}enc"], RUNTIME_ROWS)
        close(raw, arrays[f"{step}alphas"], 1e-5)
        close(weights, arrays[f"{step}alphas_zeroed"], 1e-5)
        close(embeds, arrays[f"{step}embeds"], RUNTIME_EMBEDS)
        close(carry.weight, arrays[f"{step}cif_alpha"][0], 1e-5)
        close(logits, arrays[f"{step}logits"], 1e-4)
        assert logits.argmax(-1).equal(arrays[f"{step}ids"])
