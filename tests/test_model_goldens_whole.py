"""Whole utterances against the reference's numbers: encoder layers, weights, embeddings, decoder layers, tokens."""

from __future__ import annotations

import pytest
import torch
from model_goldens import (
    CHUNKS,
    batch_feats,
    close,
    golden,
    golden_model,
    leaky_chunk_masked_rows,
    leaky_encode,
    reference_firing_frames,
)
from torch import Tensor, nn

from paraformer.model import cif
from paraformer.model.chunk_masks import chunk_layout, scama_mask
from paraformer.model.layers import length_mask
from paraformer.model.paraformer import Paraformer


def outputs_of(modules: list[nn.Module]) -> list[Tensor]:
    """A list that fills with the output rows of modules, in the order in which they run."""
    seen: list[Tensor] = []
    for module in modules:
        module.register_forward_hook(lambda _m, _i, out: seen.append(out[0] if isinstance(out, tuple) else out))
    return seen


def fresh(name: str) -> Paraformer:
    """A golden model of its own, which may be hooked."""
    model = Paraformer(golden_model(name).config)
    model.load_state_dict(golden_model(name).state_dict())
    return model.eval()


def check_layers(seen: list[Tensor], expected: dict[str, Tensor], lengths: Tensor, counts: Tensor) -> None:
    """Encoder layers within 1e-5 and decoder layers within 1e-4, each row up to its end."""
    for index in range(3):
        for row, length in enumerate(lengths.tolist()):
            close(seen[index][row, :length], expected[f"enc{index}"][row, :length], 1e-5)
    for index, layer in enumerate(seen[3:]):
        for row, count in enumerate(counts.tolist()):
            close(layer[row, :count], expected[f"dec{index}"][row, :count], 1e-4)
    assert len(seen) == 3 + sum(name.startswith("dec") for name in expected)


def test_single_utterance() -> None:
    expected, (feats, lengths) = golden("offline_A_single1"), batch_feats()
    model = fresh("offline_A")
    seen = outputs_of([*model.encoder.blocks, *model.decoder.blocks, model.decoder.final])
    whole = model.recognize(feats[1:, :31], lengths[1:])
    close(model.encoder.embed(feats[1:, :31]), expected["embed"], 1e-5)
    check_layers(seen, expected, lengths[1:], whole.counts)
    close(whole.hidden, expected["encoder_out"], 1e-5)
    close(whole.weights, expected["alphas"], 1e-5)
    close(whole.embeds, expected["acoustic_embeds"], 1e-5)
    assert whole.counts.tolist() == expected["token_num"].tolist()
    close(whole.log_probs, expected["log_probs"], 1e-4)
    assert whole.log_probs.argmax(-1).equal(expected["token_ids"])


def test_batch_row_equals_the_single_utterance() -> None:
    """The reference's batch differs from its single utterances in the last token; ours does not."""
    expected, (feats, lengths) = golden("offline_A_single1"), batch_feats()
    whole = golden_model("offline_A").recognize(feats, lengths)
    close(whole.hidden[1, :31], expected["encoder_out"][0], 1e-5)
    close(whole.weights[1, :32], expected["alphas"][0], 1e-5)
    close(whole.embeds[1, :6], expected["acoustic_embeds"][0], 1e-5)
    close(whole.log_probs[1, :6], expected["log_probs"][0], 1e-4)


def test_batch_up_to_the_last_token() -> None:
    expected, (feats, lengths) = golden("offline_A_batch"), batch_feats()
    whole = golden_model("offline_A").recognize(feats, lengths)
    assert whole.counts.tolist() == expected["token_num"].tolist()
    for row, (length, tokens) in enumerate(zip(lengths.tolist(), whole.counts.tolist(), strict=True)):
        last = row == 1
        close(whole.hidden[row, :length], expected["encoder_out"][row, :length], 1e-5)
        close(whole.weights[row, : length - last], expected["alphas"][row, : length - last], 1e-5)
        close(whole.embeds[row, : tokens - last], expected["acoustic_embeds"][row, : tokens - last], 1e-5)
    close(whole.log_probs[0], expected["log_probs"][0], 1e-4)


def test_batch_as_the_reference_pads(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, (feats, lengths) = golden("offline_A_batch"), batch_feats()
    model = fresh("offline_A")
    monkeypatch.setattr(model, "encode", lambda *args: leaky_encode(model, *args))
    seen = outputs_of([*model.encoder.blocks, *model.decoder.blocks, model.decoder.final])
    whole = model.recognize(feats, lengths)
    check_layers(seen, expected, lengths, whole.counts)
    close(whole.weights, expected["alphas"], 1e-5)
    assert whole.counts.tolist() == expected["token_num"].tolist()
    for row, tokens in enumerate(whole.counts.tolist()):
        close(whole.embeds[row, :tokens], expected["acoustic_embeds"][row, :tokens], 1e-5)
        close(whole.log_probs[row, :tokens], expected["log_probs"][row, :tokens], 1e-4)
        assert whole.log_probs[row, :tokens].argmax(-1).equal(expected["token_ids"][row, :tokens])


def test_conformer_single_row() -> None:
    """The utterance that fills the batch comes out as in the reference."""
    expected = golden("aishell_conformer_infer")
    model = golden_model("aishell_conformer")
    whole = model.recognize(expected["feats"], expected["lens"])
    close(whole.hidden[0], expected["encoder_out"][0], 1e-5)
    close(whole.weights[0], expected["alphas"][0], 1e-5)
    close(whole.embeds[0], expected["acoustic_embeds"][0], 1e-5)
    close(whole.log_probs[0], expected["log_probs"][0], 1e-4)
    assert model.ctc is not None
    close(model.ctc(whole.hidden[0]).log_softmax(-1), expected["ctc_log_probs"][0], 1e-4)


def test_conformer_batch_as_the_reference_pads(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = golden("aishell_conformer_infer")
    model = fresh("aishell_conformer")
    monkeypatch.setattr(model, "encode", lambda *args: leaky_encode(model, *args))
    whole = model.recognize(expected["feats"], expected["lens"])
    close(whole.hidden, expected["encoder_out"], 1e-5)
    close(whole.weights, expected["alphas"], 1e-5)
    assert whole.counts.tolist() == expected["token_num"].tolist()
    assert model.ctc is not None
    close(model.ctc(whole.hidden).log_softmax(-1), expected["ctc_log_probs"], 1e-4)
    for row, tokens in enumerate(whole.counts.tolist()):
        close(whole.embeds[row, :tokens], expected["acoustic_embeds"][row, :tokens], 1e-5)
        close(whole.log_probs[row, :tokens], expected["log_probs"][row, :tokens], 1e-4)


def test_chunk_masked_as_the_reference_pads(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, (feats, lengths) = golden("online_fullutt_ind0"), batch_feats()
    model, chunk = fresh("online"), CHUNKS[0]
    hidden, layout = leaky_chunk_masked_rows(model, feats, lengths, chunk)
    assert layout.lengths.tolist() == expected["encoder_lens_chunked"].tolist()
    monkeypatch.setattr(model, "encode", lambda *args: leaky_encode(model, *args))
    whole = model.recognize(feats, lengths, chunk)
    joined = layout.join(hidden)
    for row, (length, rows) in enumerate(zip(lengths.tolist(), layout.lengths.tolist(), strict=True)):
        close(hidden[row, :rows], expected["encoder_out_chunked"][row, :rows], 1e-5)
        close(joined[row, :length], expected["encoder_out_removed"][row, :length], 1e-5)
    close(whole.weights, expected["alphas"], 1e-5)
    assert whole.counts.tolist() == expected["token_num"].tolist()
    for row, tokens in enumerate(whole.counts.tolist()):
        close(whole.embeds[row, :tokens], expected["acoustic_embeds"][row, :tokens], 1e-5)
        close(whole.log_probs[row, :tokens], expected["log_probs"][row, :tokens], 1e-4)


def test_chunk_masked_rows_alone() -> None:
    """Without the leak: the first row as in the reference, the second as alone."""
    expected, (feats, lengths) = golden("online_fullutt_ind0"), batch_feats()
    model = golden_model("online")
    whole = model.recognize(feats, lengths, CHUNKS[0])
    alone = model.recognize(feats[1:, :31], lengths[1:], CHUNKS[0])
    close(whole.weights[0], expected["alphas"][0], 1e-5)
    close(whole.log_probs[0], expected["log_probs"][0], 1e-4)
    close(whole.weights[1, :64], alone.weights[0], 1e-6)
    close(whole.log_probs[1, :19], alone.log_probs[0].detach(), 1e-5)


def test_scama_mask_full_utterance() -> None:
    expected = golden("online_fullutt_ind0")
    _, layout = golden_model("online").encoder.chunk_masked(*batch_feats(), CHUNKS[0])
    counts = expected["token_num"].long()
    fired = reference_firing_frames(expected["alphas"], counts, layout.lengths + 1)
    token_mask = length_mask(counts, int(counts.max()))
    assert scama_mask(fired, token_mask, layout).float().equal(expected["scama_mask"])
    ours = torch.minimum(cif.firing_frames(expected["alphas"], int(counts.max())), layout.lengths[:, None] - 1)
    assert scama_mask(ours, token_mask, layout).float().equal(expected["scama_mask"])


def test_zero_prefixed_chunk_masked_encoder() -> None:
    """Five zero rows in front, chunk setting 15/10: the form that live steps at [0, 10, 5] match at step 0."""
    expected, (feats, _) = golden("train_match_ind1_zero_prefixed"), batch_feats()
    model = golden_model("online")
    embedded = torch.nn.functional.pad(model.encoder.embed(feats[:1]), (0, 0, 5, 0))
    close(embedded[:, :20], expected["encoder_in"], 1e-5)
    hidden = chunk_masked_rows(model, embedded)
    close(hidden, expected["encoder_out_removed"], 1e-5)
    stream = golden("stream_0_10_5_lb41")
    close(hidden[:, :10], stream["s0__encoder_out"][:, :10], 1e-5)


def chunk_masked_rows(model: Paraformer, embedded: Tensor) -> Tensor:
    """The chunk-masked encoder on embedded rows (1, T, F), rejoined."""
    layout = chunk_layout(torch.tensor([embedded.shape[1]]), CHUNKS[1], 5)
    hidden, _, _ = model.encoder.run(layout.split(embedded), layout.attention_mask()[None], layout.filled[None])
    return layout.join(hidden)
