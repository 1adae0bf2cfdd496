"""What goes on inside models with hotwords and the second predictor, step by step, against the reference's numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from model_goldens import GOLDEN, batch_feats, close, golden, leaky_encode, loop_integrate
from test_model_hotwords import CONTEXT, PREDICTORS, variant, words
from torch import Tensor

from paraformer.config import PredictorConfig
from paraformer.model import cif
from paraformer.model.cif import Predictor
from paraformer.model.hotwords import Seaco
from paraformer.model.layers import length_mask
from paraformer.model.timing import scaled
from paraformer.text import words_of


def peaks(weights: Tensor, threshold: float = 1.0 - 1e-4) -> Tensor:
    """The running sum from which the reference reads times (variants 2.2)."""
    found = []
    for row in weights:
        total, told = torch.zeros(()), []
        for weight in row:
            total = total + weight
            told.append(total)
            total = torch.where(total >= threshold, total - threshold, total)
        found.append(torch.stack(told))
    return torch.stack(found)


@torch.no_grad()
def test_seaco_step_by_step() -> None:
    """Of the longest of the batch, which has no padding."""
    expected, model = golden("seaco"), variant("seaco")
    assert isinstance(model.hotwords, Seaco)
    feats, lengths = batch_feats()
    whole = model.recognize(feats, lengths, hotwords=model.encode_hotwords(words("hw")))
    assert whole.counts.tolist() == expected["token_num"].tolist()
    assert whole.lengths.tolist() == expected["encoder_lens"].tolist()
    assert whole.log_probs[0].argmax(-1).equal(expected["token_ids"][0])
    close(model.encode_hotwords(words("hw")), expected["contextual_info"], 1e-5)
    encoded = model.encode(feats, lengths)
    mask = length_mask(whole.counts, whole.embeds.shape[1])
    rows = model.decoder.rows(encoded.hidden, encoded.memory_mask(), whole.embeds, mask)
    close(rows[0], expected["dec_hidden"][0], 1e-5)
    close(model.decoder.output(rows).log_softmax(-1)[0], expected["dec_log_probs"][0], 1e-4)
    for name, listed in (("", "hw"), ("asf__", "many")):
        named = model.encode_hotwords(words(listed))[None]
        if name:
            named = expected["asf__contextual_info"][None]
        close(model.hotwords.attend(whole.embeds, named, mask)[0], expected[f"{name}cif_attended"][0], 1e-5)
        close(model.hotwords.attend(rows, named, mask)[0], expected[f"{name}dec_attended"][0], 1e-5)
        biased = model.hotwords.scores(whole.embeds, rows, named, mask).log_softmax(-1)
        close(biased[0], expected[f"{name}dha_log_probs"][0], 1e-4)


@torch.no_grad()
def test_times_are_read_from_the_same_sums() -> None:
    expected, model = golden("seaco"), variant("seaco")
    feats, lengths = batch_feats()
    whole, alone = model.recognize(feats, lengths), model.recognize(feats[1:, :31], lengths[1:])
    assert whole.fine is not None
    assert alone.fine is not None
    close(peaks(whole.fine[:1]), expected["us_cif_peak"][:1], 1e-5)
    close(peaks(alone.fine), expected["single1__us_cif_peak"], 1e-5)
    coarse = whole.fine[:1].unflatten(1, (-1, 3)).sum(-1)
    close(coarse, expected["ds_alphas"][:1], 1e-5)
    close(peaks(coarse), expected["ds_cif_peak"][:1], 1e-5)


@torch.no_grad()
def test_contextual_step_by_step() -> None:
    expected, model = golden("contextual"), variant("contextual")
    feats, lengths = batch_feats()
    named = model.encode_hotwords(CONTEXT)[None]
    whole = model.recognize(feats, lengths, hotwords=named[0])
    assert whole.counts.tolist() == expected["token_num"].tolist()
    assert whole.log_probs[0].argmax(-1).equal(expected["token_ids"][0])
    seen: dict[str, Tensor] = {}
    decoder, encoded = model.decoder, model.encode(feats, lengths)
    mask = length_mask(whole.counts, whole.embeds.shape[1])
    hook = decoder.hotwords.register_forward_hook(
        lambda _, given, out: seen.update(x_self_attn=given[0], x_src_attn=given[1], out=out)
    )
    decoder.rows(encoded.hidden, encoded.memory_mask(), whole.embeds, mask, named)
    hook.remove()
    close(seen["x_self_attn"][0], expected["x_self_attn"][0], 1e-5)
    close(seen["x_src_attn"][0], expected["x_src_attn"][0], 1e-5)


@pytest.mark.parametrize("name", PREDICTORS)
@torch.no_grad()
def test_second_predictor_step_by_step(name: str) -> None:
    arrays = golden("cifv3_unit")
    predictor = Predictor(PredictorConfig(timing=PREDICTORS[name], dropout=0.0), 8)
    theirs = {"conv": "cif_conv1d", "output": "cif_output", "timing.up": "upsample_cnn", "timing.lstm": "blstm"}
    theirs["timing.output"] = "cif_output2"
    weights = {}
    for ours in predictor.state_dict():
        module, leaf = ours.rsplit(".", 1)
        weights[ours] = arrays[f"{name}__sd:{theirs[module]}.{leaf}"]
    predictor.load_state_dict(weights)
    mask = arrays["mask"][:, 0] > 0
    hidden, lengths = arrays["hidden"], mask.sum(-1)
    rows, summed, counts = predictor.complete(hidden, predictor(hidden, mask), lengths)
    assert counts.tolist() == arrays[f"{name}__infer_token_num"].tolist()
    close(cif.integrate(rows, summed, int(counts.max()))[0], arrays[f"{name}__infer_embeds"][0], 1e-5)
    close(peaks(summed, 1.0), arrays[f"{name}__infer_peak"], 1e-5)
    fine = predictor.fine(hidden * mask[..., None], lengths)
    # Beyond its own end the second utterance's LSTM hears nothing here, and the reference's what is there.
    close(fine[0].sum(), arrays[f"{name}__infer_token_num2"][0], 1e-5)
    close(peaks(scaled(fine, counts)[:1]), arrays[f"{name}__ts_us_peak"][:1], 1e-5)
    targets = torch.tensor([6, 3])
    trained = cif.scale_to_targets(predictor(hidden, mask), targets)
    close(trained, arrays[f"{name}__train_alphas"], 1e-5)
    close(loop_integrate(hidden, trained, 6), arrays[f"{name}__train_embeds"], 1e-5)


def test_an_unknown_token_takes_its_own_time_along() -> None:
    """The reference pairs what is left of the tokens with all times, by position (docs/quirks.md)."""
    differ = 0
    for case in json.loads((GOLDEN / "timestamps_unk.json").read_text()):
        kept = [
            (token, times) for token, times in zip(case["tokens"], case["timestamps"], strict=True) if token != "<unk>"
        ]
        found = words_of(token for token, _ in kept)
        assert " ".join(word.text for word in found) == case["text"]
        times = [[kept[word.first][1][0], kept[word.last][1][1]] for word in found]
        assert len(times) == len(case["out"])
        differ += times != case["out"]
    assert differ == 5


@torch.no_grad()
def test_padding_is_all_that_differs_in_the_second_utterance() -> None:
    """With the reference's leak the second row's vectors are its own, too."""
    expected, model = golden("seaco"), variant("seaco")
    feats, lengths = batch_feats()
    leaky = leaky_encode(model, feats, lengths)
    hidden, weights = model.predictor.add_tail(leaky.hidden, leaky.weights, leaky.lengths)
    close(weights, expected["alphas"], 1e-5)
    vectors = cif.integrate(hidden, weights, 12)
    close(vectors[0], expected["acoustic_embeds"][0], 1e-5)
    count = int(expected["token_num"][1])
    close(vectors[1, : count - 1], expected["acoustic_embeds"][1, : count - 1], 1e-5)
    assert np.isfinite(vectors.numpy()).all()
