"""Models that listen for hotwords, and the second predictor, against the reference's numbers."""

from __future__ import annotations

import json
from dataclasses import replace
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
from paraformer.model import cif, sampler
from paraformer.model.cif import Predictor
from paraformer.model.encoded import Encoded
from paraformer.model.hotwords import hotword_labels, merge, shortlist
from paraformer.model.objective import Batch, losses_of
from paraformer.model.paraformer import Paraformer
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


def drawn_by_the_reference(*sizes: int) -> torch.Generator:
    """Its random numbers where its sampler begins: before, each stack of layers draws one for each of them."""
    generator = torch.Generator().manual_seed(5)
    for size in sizes:
        torch.empty(size).uniform_(generator=generator)
    return generator


def lose(patch: pytest.MonkeyPatch, utterance: int, token: int) -> None:
    """Without the vector that the reference's rounding lost in a training fixture (docs/quirks.md).

    Other kinds of processor would lose others, so it is told which and not computed again.
    """
    integrate = cif.integrate

    def others(hidden: Tensor, weights: Tensor, tokens: int) -> Tensor:
        vectors = integrate(hidden, weights, tokens)
        present = torch.ones(vectors.shape[:2], dtype=torch.bool)
        present[utterance, token] = False
        return vectors * present[..., None]

    patch.setattr(cif, "integrate", others)


def training_batch(told: dict[str, Any], hotwords: list[list[int]] | None) -> Batch:
    return Batch(*batch_feats(), torch.tensor(told["text"]), torch.tensor([8, 5]), hotwords=hotwords)


def gradients(model: Paraformer) -> dict[str, float]:
    """Norms by FunASR's names, of the tensors that a loss reaches."""
    names = funasr_names(model.config, model.state_dict())
    found = {names[key]: float(p.grad.norm()) for key, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def test_labels_of_the_reference() -> None:
    expected = golden("seaco_train")
    words = [[9, 14, 20], [12, 40]]
    assert hotword_labels(expected["text"], words, 47).equal(expected["seaco_label_pad"])
    assert hotword_labels(expected["text"], [], 47)[expected["text"] >= 0].unique().tolist() == [47]


def test_seaco_is_trained_as_the_reference_trains_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lose(monkeypatch, 0, 8)
    expected, model = golden("seaco_train"), variant("seaco")
    batch = Batch(*batch_feats(), expected["text"], expected["text_lens"], hotwords=[[9, 14, 20], [12, 40]])
    losses = losses_of(model, leaky_encode(model, *batch_feats()), batch, None, None)
    close(losses.total, expected["loss"][0], 1e-5)
    losses.total.backward()
    norms = json.loads((GOLDEN / "seaco_train_gradnorms.json").read_text())
    found = gradients(model)
    assert found.keys() == norms.keys()
    for name, norm in norms.items():
        assert found[name] == pytest.approx(norm, rel=1e-4, abs=1e-6), name


@torch.no_grad()
def test_its_own_objective_counts_where_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    lose(monkeypatch, 0, 8)
    expected, model = golden("seaco_train"), variant("seaco")
    monkeypatch.setattr(model.hotwords, "config", replace(model.hotwords.config, trains_decoder=True))
    batch = Batch(*batch_feats(), expected["text"], expected["text_lens"], hotwords=[[9, 14, 20], [12, 40]])
    encoded = leaky_encode(model, *batch_feats())
    losses = losses_of(model, encoded, batch, None, drawn_by_the_reference(1, 2, 3, 1, 6, 1, 6, 1, 3, 1))
    close(losses.total, expected["loss_train_decoder"][0], 1e-5)
    close((losses.total - losses.cross_entropy) * 100, expected["loss_att_train_decoder"][0], 1e-4)


def test_gradients_are_those_of_finite_differences() -> None:
    """Of the part that hears hotwords, in double precision, along random directions."""
    torch.manual_seed(0)
    config = funasr_config.read(golden_settings("seaco"), 50)
    model = Paraformer(config).double().eval()
    encoded = Encoded(torch.randn(2, 20, 32).double(), torch.rand(2, 20).double(), torch.tensor([20, 14]))
    batch = Batch(
        encoded.hidden,
        encoded.lengths,
        torch.tensor([[5, 9, 14, 20], [33, 12, -1, -1]]),
        torch.tensor([4, 2]),
        hotwords=[[9, 14], [33, 12]],
    )

    def loss() -> Tensor:
        return losses_of(model, encoded, batch, None, None).total

    loss().backward()
    for name in ("hotwords.lstm.weight_ih_l0", "hotwords.blocks.2.cross.kv.weight", "hotwords.output.bias"):
        parameter = model.get_parameter(name)
        assert parameter.grad is not None
        direction, step = torch.randn_like(parameter), 1e-5
        with torch.no_grad():
            parameter += step * direction
            after = loss()
            parameter -= 2 * step * direction
            change = (after - loss()) / (2 * step)
            parameter += step * direction
        assert float((parameter.grad * direction).sum()) == pytest.approx(float(change), rel=1e-6), name


def test_the_second_predictor_is_trained_with_the_first() -> None:
    """The reference's LSTM hears padding, which makes a thousandth; the first predictor does not feel it."""
    expected = json.loads((GOLDEN / "bicif_e2e.json").read_text())["train"]
    model, batch = variant("bicif"), training_batch(expected, None)
    losses = losses_of(model, leaky_encode(model, *batch_feats()), batch, None, drawn_by_the_reference(1, 2, 3, 1))
    close(losses.cross_entropy, torch.tensor(expected["loss_att"]), 1e-5)
    close(losses.quantity, torch.tensor(expected["loss_pre"]), 1e-5)
    close(losses.total, torch.tensor(expected["loss"]), 1e-3)
    assert float(losses.accuracy) == pytest.approx(expected["acc"])
    losses.total.backward()
    found = gradients(model)
    for name, norm in expected["gradnorm"].items():
        assert found[name] == pytest.approx(norm, rel=1e-4 if ".cif_" in name and "2" not in name else 2e-2), name


def test_contextual_is_trained_as_the_reference_trains_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose sampler takes padding for wrong tokens."""
    lose(monkeypatch, 1, 5)
    choose = sampler.choose_positions

    def padded_too(predicted: Tensor, targets: Tensor, lengths: Tensor, *rest: Any) -> Tensor:
        return choose(predicted, targets.clamp(min=0), torch.full_like(lengths, targets.shape[1]), *rest)

    expected = json.loads((GOLDEN / "contextual_e2e.json").read_text())["train"]
    model, batch = variant("contextual"), training_batch(expected, [[9, 14, 20], [12, 40]])
    encoded = leaky_encode(model, *batch_feats())
    with monkeypatch.context() as patch:
        patch.setattr(sampler, "choose_positions", padded_too)
        losses = losses_of(model, encoded, batch, None, drawn_by_the_reference(1, 1, 2, 1, 1))
    for value, name in ((losses.total, "loss"), (losses.cross_entropy, "loss_att"), (losses.quantity, "loss_pre")):
        close(value, torch.tensor(expected[name]), 1e-5)
    assert float(losses.accuracy) == pytest.approx(expected["acc"])
    losses.total.backward()
    assert gradients(model).keys() >= {"bias_embed.weight", "decoder.bias_output.weight"}
    none = model(replace(batch, hotwords=None), generator=torch.Generator().manual_seed(5))
    assert none.total.isfinite()


@pytest.mark.parametrize("name", ["seaco", "contextual"])
def test_padding_does_not_change_the_objective(name: str) -> None:
    config = variant(name).config
    model = Paraformer(replace(config, objective=replace(config.objective, sampling_ratio=0.0))).eval()
    model.load_state_dict(variant(name).state_dict())
    feats, lengths = batch_feats()
    targets, words = torch.tensor([[33, 12, 40, 8, 3]]), [[12, 40], [7]]
    with torch.no_grad():
        alone = model(Batch(feats[1:, :31], lengths[1:], targets, torch.tensor([5]), hotwords=words))
        wide = torch.nn.functional.pad(targets, (0, 3), value=-1)
        padded = model(Batch(feats[1:], lengths[1:], wide, torch.tensor([5]), hotwords=words))
    close(padded.total, alone.total, 1e-5)
