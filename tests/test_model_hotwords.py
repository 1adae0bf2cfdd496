"""Models that listen for hotwords, and the second predictor, against the reference's numbers."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from funasr_dirs import golden_settings, golden_tensors
from model_goldens import GOLDEN, batch_feats, close, golden, leaky_encode
from torch import Tensor

from paraformer.checkpoint import funasr_config
from paraformer.checkpoint.keys import funasr_names
from paraformer.config import PredictorConfig, TimingConfig
from paraformer.errors import UnsupportedModel
from paraformer.model.cif import Predictor
from paraformer.model.hotwords import merge, shortlist
from paraformer.model.paraformer import Batch, Paraformer
from paraformer.model.timing import scaled

CONTEXT = [[5, 9, 14], [20, 21], [7], [33, 12, 40, 8, 3]]


@cache
def variant(name: str) -> Paraformer:
    """A golden model of a variant; BiCif's tensors are those of SeACo without the hotwords'."""
    model = Paraformer(funasr_config.read(golden_settings(name), 50))
    tensors = golden_tensors("seaco" if name == "bicif" else name)
    names = funasr_names(model.config, model.state_dict())
    model.load_state_dict({ours: tensors[theirs].float() for ours, theirs in names.items()})
    return model.eval()


def words(name: str) -> list[list[int]]:
    """A golden list of hotwords, without the last, which is "none of them"."""
    lists: dict[str, Any] = json.loads((GOLDEN / "seaco_hotwords.json").read_text())
    return lists[name][:-1]


# -- SeACo ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_rows_of_hotwords() -> None:
    expected, model = golden("seaco"), variant("seaco")
    close(model.encode_hotwords(words("hw")), expected["hw_embed"], 1e-5)
    close(model.encode_hotwords(words("many")), expected["asf__hw_embed"], 1e-5)


@torch.no_grad()
def test_the_longest_of_a_batch_is_as_in_the_reference() -> None:
    expected, model = golden("seaco"), variant("seaco")
    whole = model.recognize(*batch_feats(), hotwords=model.encode_hotwords(words("hw")))
    close(whole.hidden[0], expected["encoder_out"][0], 1e-5)
    close(whole.weights[0], expected["alphas"][0], 1e-5)
    close(whole.embeds[0], expected["acoustic_embeds"][0], 1e-5)
    close(whole.log_probs[0], expected["merged"][0], 1e-4)
    assert whole.fine is not None
    close(whole.fine[0], expected["us_alphas"][0], 1e-5)


@torch.no_grad()
def test_the_shorter_of_a_batch_is_as_alone() -> None:
    """The reference's second predictor hears what the encoder left beyond the end; ours does not."""
    expected, model, (feats, lengths) = golden("seaco"), variant("seaco"), batch_feats()
    hotwords = model.encode_hotwords(words("hw"))
    both = model.recognize(feats, lengths, hotwords=hotwords)
    alone = model.recognize(feats[1:, :31], lengths[1:], hotwords=hotwords)
    for name, value in (("merged", alone.log_probs), ("us_alphas", alone.fine), ("acoustic_embeds", alone.embeds)):
        close(value, expected[f"single1__{name}"], 1e-4 if name == "merged" else 1e-5)
    close(both.log_probs[1, :6], alone.log_probs[0], 1e-5)
    assert both.fine is not None
    assert alone.fine is not None
    close(both.fine[1, :93], alone.fine[0], 1e-6)


@torch.no_grad()
def test_no_hotwords_and_half_of_them() -> None:
    expected, model = golden("seaco"), variant("seaco")
    hotwords = model.encode_hotwords(words("hw"))
    close(model.recognize(*batch_feats()).log_probs[0], expected["none__merged"][0], 1e-4)
    half = model.recognize(*batch_feats(), hotwords=hotwords, hotword_weight=0.7)
    close(half.log_probs[0], expected["w07__merged"][0], 1e-4)


@torch.no_grad()
def test_a_long_list_is_filtered() -> None:
    expected, model = golden("seaco"), variant("seaco")
    whole = model.recognize(*batch_feats(), hotwords=model.encode_hotwords(words("many")))
    close(whole.log_probs[0], expected["asf__merged"][0], 1e-4)
    assert whole.log_probs[0].argmax(-1).equal(expected["asf__token_ids"][0])


def attention_of(model: Paraformer, whole: Any, hotwords: Tensor) -> Tensor:
    feats, lengths = batch_feats()
    encoded = model.encode(feats, lengths)
    mask = torch.arange(whole.embeds.shape[1])[None] < whole.counts[:, None]
    rows = model.decoder.rows(encoded.hidden, encoded.memory_mask(), whole.embeds, mask)
    return model.hotwords.attention(rows, hotwords[None], mask)


@torch.no_grad()
def test_the_filter_looks_at_each_utterance_by_itself() -> None:
    expected, model = golden("seaco"), variant("seaco")
    many = model.encode_hotwords(words("many"))
    whole = model.recognize(*batch_feats(), hotwords=many)
    attention = attention_of(model, whole, many)
    close(attention[0], expected["asf__asf_scores"], 1e-4)
    chosen = shortlist(many, attention)
    assert chosen.shape == (2, 51, 32)
    close(chosen[0].sort(0).values, expected["asf__contextual_info"].sort(0).values, 1e-5)
    feats, lengths = batch_feats()
    alone = model.recognize(feats[1:, :31], lengths[1:], hotwords=many)
    close(whole.log_probs[1, :6], alone.log_probs[0], 1e-5)


@torch.no_grad()
def test_a_short_filter() -> None:
    expected, model = golden("seaco"), variant("seaco")
    ten = model.encode_hotwords(words("many10"))
    attention = attention_of(model, model.recognize(*batch_feats()), ten)
    close(attention[0], expected["asf5__asf_scores"], 1e-4)
    close(shortlist(ten, attention, 5)[0], expected["asf5__contextual_info"], 1e-5)


def test_the_second_decoder_counts_where_it_hears_a_word() -> None:
    plain, biased = torch.rand(1, 3, 4), torch.tensor([[[9.0, 0, 0, 0], [0, 9.0, 0, 0], [0, 0, 0, 9.0]]])
    assert merge(plain, biased, 0)[0].equal(torch.stack([plain[0, 0], biased[0, 1], biased[0, 2]]))
    assert merge(plain, biased, 0, 0.0).equal(plain)


# -- second predictor -------------------------------------------------------------------------------------------------


PREDICTORS = {
    "blstm": TimingConfig(),
    "blstm_cif1": TimingConfig(from_conv=True),
    "cnn": TimingConfig(rate=5, recurrent=False, from_conv=True, smooth_factor=1.0, noise_threshold=0.0),
}


@pytest.mark.parametrize("name", PREDICTORS)
@torch.no_grad()
def test_second_predictor(name: str) -> None:
    arrays = golden("cifv3_unit")
    predictor = Predictor(PredictorConfig(timing=PREDICTORS[name], dropout=0.0), 8)
    names = {
        "conv": "cif_conv1d",
        "output": "cif_output",
        "timing.up": "upsample_cnn",
        "timing.lstm": "blstm",
        "timing.output": "cif_output2",
    }
    weights = {
        ours: arrays[f"{name}__sd:{names[module]}.{leaf}"]
        for ours in predictor.state_dict()
        for module, leaf in [ours.rsplit(".", 1)]
    }
    predictor.load_state_dict(weights)
    mask = arrays["mask"][:, 0] > 0
    hidden, lengths = arrays["hidden"], mask.sum(-1)
    close(predictor.complete(hidden, predictor(hidden, mask), lengths)[1], arrays[f"{name}__infer_alphas"], 1e-5)
    counts = arrays[f"{name}__infer_token_num"]
    hidden = hidden * mask[..., None]  # as encoders give them
    fine = scaled(predictor.fine(hidden, lengths), counts)
    close(fine[0], arrays[f"{name}__ts_us_alphas"][0], 1e-5)
    alone = scaled(predictor.fine(hidden[1:, : int(lengths[1])], lengths[1:]), counts[1:])
    close(fine[1, : alone.shape[1]], alone[0], 1e-6)


# -- Contextual -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_contextual() -> None:
    expected, model = golden("contextual"), variant("contextual")
    hotwords = model.encode_hotwords(CONTEXT)
    close(hotwords, expected["contextual"][0], 1e-5)
    close(model.encode_hotwords([]), expected["none__contextual"][0], 1e-5)
    whole = model.recognize(*batch_feats(), hotwords=hotwords)
    close(whole.embeds[0], expected["acoustic_embeds"][0], 1e-5)
    close(whole.log_probs[0], expected["log_probs"][0], 1e-4)
    close(model.recognize(*batch_feats()).log_probs[0], expected["none__log_probs"][0], 1e-4)
    for weight, name in ((0.3, "scale03"), (0.0, "scale00")):
        weighted = model.recognize(*batch_feats(), hotwords=hotwords, hotword_weight=weight)
        close(weighted.log_probs[0], expected[f"{name}__log_probs"][0], 1e-4)
    feats, lengths = batch_feats()
    alone = model.recognize(feats[1:, :31], lengths[1:], hotwords=hotwords)
    close(whole.log_probs[1, : int(whole.counts[1])], alone.log_probs[0], 1e-5)


# -- training ---------------------------------------------------------------------------------------------------------


def test_the_second_predictor_is_trained_with_the_first() -> None:
    feats, lengths = batch_feats()
    targets = torch.tensor([[5, 9, 14, 20, 21, 7, 30, 11], [33, 12, 40, 8, 3, -1, -1, -1]])
    batch = Batch(feats, lengths, targets, torch.tensor([8, 5]))
    model = variant("bicif")
    found = model(batch, generator=torch.Generator().manual_seed(5))
    fine = model.predictor.fine(*model.encoder(feats, lengths)).sum(-1)
    # The reference's LSTM hears padding, which makes a thousandth.
    expected = json.loads((GOLDEN / "bicif_e2e.json").read_text())["train"]
    second = (fine - torch.tensor([9, 6])).abs().sum() / 15
    close(second, torch.tensor(expected["loss_pre2"]), 1e-3)
    close(found.total, found.cross_entropy + found.quantity + 0.5 * second.detach(), 1e-5)
    leaky = model.losses_of(leaky_encode(model, feats, lengths), batch, None, torch.Generator().manual_seed(5))
    close(leaky.quantity, torch.tensor(expected["loss_pre"]), 1e-5)


def test_models_with_hotwords_say_that_they_cannot_be_trained() -> None:
    feats, lengths = batch_feats()
    for name in ("seaco", "contextual"):
        with pytest.raises(UnsupportedModel, match="cannot be trained yet"):
            variant(name)(Batch(feats, lengths, torch.tensor([[5], [6]]), torch.tensor([1, 1])))
