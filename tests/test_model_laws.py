"""Laws of the whole model: neighbours and padding change nothing, windows equal live steps, steps equal whole."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_goldens import CHUNKS, close, golden_model
from torch import Tensor

from paraformer.config import (
    ChunkConfig,
    ConformerEncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    TransformerEncoderConfig,
)
from paraformer.model.conformer import ConformerEncoder, relative_shift
from paraformer.model.encoded import Chunking
from paraformer.model.layers import Fsmn, length_mask
from paraformer.model.objective import Batch, Losses, ctc_of
from paraformer.model.paraformer import Paraformer, ParaformerState, StepOutput, Whole
from paraformer.model.transformer import TransformerEncoder, subsampled

LIVE = ChunkConfig(left=2, chunk=3, right=2)

chunks = st.builds(
    ChunkConfig,
    left=st.integers(0, 4),
    chunk=st.integers(1, 6),
    right=st.integers(0, 3),
    encoder_look_back=st.sampled_from([-1, 0, 1, 2, 4]),
    decoder_look_back=st.integers(0, 2),
)


def noise(rows: int, *, seed: int, width: int = 560) -> Tensor:
    """Windows of the size that normalised speech has, (rows, width)."""
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def pad(rows: list[Tensor], extra: int = 0) -> tuple[Tensor, Tensor]:
    """A batch (B, T, F), padded with something that must not matter, and its lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    feats = torch.full((len(rows), int(lengths.max()) + extra, rows[0].shape[1]), 3.0)
    for index, row in enumerate(rows):
        feats[index, : len(row)] = row
    return feats, lengths


def live(model: Paraformer, feats: Tensor, chunk: ChunkConfig) -> tuple[list[StepOutput], ParaformerState]:
    """All live steps of one utterance (T, F)."""
    state, outputs = model.init_state(1, chunk), []
    for begin in range(0, len(feats) + 1, chunk.chunk):
        frames = feats[None, begin : begin + chunk.chunk]
        final = torch.tensor([begin + chunk.chunk > len(feats)])
        output, state = model.step(frames, torch.tensor([frames.shape[1]]), final, state, chunk)
        outputs.append(output)
    return outputs, state


def tokens_of(outputs: list[StepOutput], row: int = 0) -> Tensor:
    """Log-probabilities of all tokens, (L, V)."""
    rows = [output.logits[row, : int(output.counts[row])] for output in outputs]
    return torch.cat(rows).log_softmax(-1)


def undecided(whole: Whole) -> bool:
    """Whether rounding alone could add or remove a token of some row."""
    sums = whole.weights.double().sum(-1)
    return bool(((sums - sums.round()).abs() < 1e-4).any())


# -- padding and neighbours -------------------------------------------------------------------------------------------

FORMS: list[tuple[str, Chunking]] = [
    ("offline_A", None),
    ("offline_B", None),
    ("aishell_conformer", None),
    ("online", None),
    ("online", CHUNKS[0]),
    ("online", LIVE),
]


@pytest.mark.parametrize(("name", "chunk"), FORMS)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3), extra=st.integers(0, 9), seed=st.integers(0, 9))
@settings(max_examples=10)
@torch.no_grad()
def test_a_row_is_the_same_alone(name: str, chunk: Chunking, lengths: list[int], extra: int, seed: int) -> None:
    model = golden_model(name)
    width, stretch = model.config.frontend.input_dim, 1 if model.config.frontend.lfr_n > 1 else 4
    rows = [noise(length * stretch, seed=seed + index, width=width) for index, length in enumerate(lengths)]
    together = model.recognize(*pad(rows, extra), chunk)
    for index, row in enumerate(rows):
        alone = model.recognize(*pad([row]), chunk)
        if undecided(alone):
            continue
        count = int(alone.counts)
        assert int(together.counts[index]) == count
        close(together.embeds[index, :count], alone.embeds[0], 1e-5)
        close(together.log_probs[index, :count], alone.log_probs[0], 1e-4)


@given(chunk=chunks, lengths=st.lists(st.integers(0, 12), min_size=2, max_size=3), seed=st.integers(0, 9))
@settings(max_examples=20)
@torch.no_grad()
def test_streams_that_step_together(chunk: ChunkConfig, lengths: list[int], seed: int) -> None:
    """Streams that end at different steps, side by side: each computes what it computes alone."""
    model = golden_model("online")
    rows = [noise(length, seed=seed + index) for index, length in enumerate(lengths)]
    alone = [live(model, row, chunk)[0] for row in rows]
    for step in range(max(len(outputs) for outputs in alone)):
        running = [index for index, outputs in enumerate(alone) if step < len(outputs)]
        if step == 0:
            state = model.init_state(len(rows), chunk)
            before = running
        state = state.take([before.index(index) for index in running])
        feats = [rows[index][step * chunk.chunk : (step + 1) * chunk.chunk] for index in running]
        final = torch.tensor([step == len(alone[index]) - 1 for index in running])
        output, state = model.step(*pad(feats), final, state, chunk)
        before = running
        for place, index in enumerate(running):
            check_same_step(output, place, alone[index][step], len(feats[place]) + chunk.context)


def check_same_step(together: StepOutput, place: int, alone: StepOutput, rows: int) -> None:
    """A stream's part of a common step equals its own step."""
    count = int(alone.counts)
    close(together.hidden[place, :rows], alone.hidden[0, :rows], 1e-5)
    close(together.weights[place, :rows], alone.weights[0, :rows], 1e-5)
    assert int(together.counts[place]) == count
    close(together.logits[place, :count], alone.logits[0], 1e-4)


@pytest.mark.parametrize(("name", "chunk"), FORMS)
@torch.no_grad()
def test_padding_does_not_change_the_training_objective(name: str, chunk: Chunking) -> None:
    model = golden_model(name)
    width, stretch = model.config.frontend.input_dim, 1 if model.config.frontend.lfr_n > 1 else 4
    rows = [noise(length * stretch, seed=length, width=width) for length in (30, 17)]
    targets, target_lengths = torch.tensor([[5, 9, 7, 3], [8, 4, -1, -1]]), torch.tensor([4, 2])
    totals = []
    for extra in (0, 6):
        batch = Batch(*pad(rows, extra), torch.nn.functional.pad(targets, (0, extra), value=-1), target_lengths)
        totals.append(model(batch, chunk, torch.Generator().manual_seed(1)).total)
    assert totals[0].isfinite()
    close(totals[1], totals[0], 1e-4 * float(totals[0]))


@torch.no_grad()
def test_weights_of_the_objective_add_up() -> None:
    """Every part counts with its weight, and parts of no weight are not there at all."""
    model = Paraformer(tiny.config()).eval()
    feats, lengths = pad([noise(30, seed=1), noise(17, seed=2)])
    liked = model.recognize(feats, lengths).log_probs.argmax(-1)[:, :4]
    batch = Batch(feats, lengths, liked, torch.tensor([4, 4]))

    def parts(objective: ObjectiveConfig) -> Losses:
        model.config = dataclasses.replace(model.config, objective=objective)
        return model(batch, generator=torch.Generator().manual_seed(1))

    plain = parts(ObjectiveConfig())
    assert plain.mwer == 0
    close(plain.total, plain.cross_entropy + plain.quantity, 1e-5)
    tuned = parts(ObjectiveConfig(cross_entropy_weight=0.1, mwer_weight=2.0, quantity_weight=0.5))
    assert tuned.mwer != 0
    close(tuned.total, 0.1 * plain.cross_entropy + 0.5 * plain.quantity + 2.0 * tuned.mwer, 1e-5)


@torch.no_grad()
def test_the_middle_of_the_encoder_learns_the_ctc_units() -> None:
    model = Paraformer(
        dataclasses.replace(tiny.config(), objective=ObjectiveConfig(ctc_weight=0.3, middle_ctc_weight=0.5))
    )
    targets, lengths = torch.tensor([[5, 9, 7, 3]]), torch.tensor([4])
    batch = Batch(torch.randn(1, 30, 560), torch.tensor([30]), targets, lengths)
    losses = model.train()(batch, generator=torch.Generator().manual_seed(1))
    expected = 0.7 * losses.cross_entropy + 0.3 * losses.ctc + losses.quantity
    middle = model.encode(batch.feats, batch.lengths).middle
    assert middle is not None
    assert losses.total > expected
    close(losses.total, expected + 0.5 * ctc_of(model, middle, batch.lengths, batch), 1e-4)
    assert model.eval().encode(batch.feats, batch.lengths).middle is None


# -- steps and windows ------------------------------------------------------------------------------------------------


@given(chunk=chunks, lengths=st.lists(st.integers(1, 30), min_size=1, max_size=2), seed=st.integers(0, 9))
@settings(max_examples=40)
@torch.no_grad()
def test_windows_equal_live_steps(chunk: ChunkConfig, lengths: list[int], seed: int) -> None:
    model = golden_model("online")
    rows = [noise(length, seed=seed + index) for index, length in enumerate(lengths)]
    whole = model.recognize(*pad(rows), chunk)
    if undecided(whole):
        return
    for index, row in enumerate(rows):
        outputs, _ = live(model, row, chunk)
        expected = tokens_of(outputs)
        assert int(whole.counts[index]) == len(expected)
        close(whole.embeds[index, : len(expected)], torch.cat([o.embeds[0] for o in outputs]), 1e-4)
        close(whole.log_probs[index, : len(expected)], expected, 1e-3)


@given(cut=st.integers(0, 9), seed=st.integers(0, 9), shift=st.integers(0, 2))
def test_fsmn_stepping_equals_whole(cut: int, seed: int, shift: int) -> None:
    """A memory that sees only the past: kernel - 1 earlier rows are all it needs."""
    torch.manual_seed(seed)
    memory = Fsmn(6, 3 + 2 * shift, 1 + shift, 0.0)
    x, past = torch.randn(2, 9, 6), torch.zeros(2, memory.left, 6)
    assert memory.right == 0
    first = memory.step(x[:, :cut], past)
    second = memory.step(x[:, cut:], torch.cat([past, x[:, :cut]], 1)[:, cut:])
    close(torch.cat([first, second], 1), memory(x).detach(), 1e-5)


@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=5), seed=st.integers(0, 9))
@torch.no_grad()
def test_decoder_stepping_equals_whole(counts: list[int], seed: int) -> None:
    """Over a memory that stays the same, tokens in steps of any size score as all at once."""
    decoder = golden_model("online").decoder
    generator = torch.Generator().manual_seed(seed)
    memory, embeds = torch.randn(1, 7, 32, generator=generator), torch.randn(1, sum(counts), 32, generator=generator)
    mask, state, logits, begin = torch.ones(1, 7, dtype=torch.bool), decoder.init_state(1, 32, 0), [], 0
    for count in counts:
        step, _, state = decoder.step(memory, mask, embeds[:, begin : begin + count], torch.tensor([count]), state)
        logits.append(step)
        begin += count
    whole = decoder(memory, mask[:, None], embeds, torch.ones(1, sum(counts), dtype=torch.bool))
    close(torch.cat(logits, 1), whole, 1e-4)


@torch.no_grad()
def test_state_of_some_streams() -> None:
    """stack, take, where and tensors agree with each other."""
    model = golden_model("online")
    states = [live(model, noise(5, seed=seed), LIVE)[1] for seed in range(3)]
    stacked = ParaformerState.stack(states)
    again = ParaformerState.from_tensors(stacked.tensors())
    mixed = stacked.where(torch.tensor([True, False, True]), stacked.take([2, 1, 0]))
    for name, value in states[1].tensors().items():
        assert again.take([1]).tensors()[name].equal(value)
        assert mixed.take([1]).tensors()[name].equal(value)


# -- convolutional subsampling ----------------------------------------------------------------------------------------


def small_encoder(kind: str) -> ConformerEncoder | TransformerEncoder:
    torch.manual_seed(0)
    if kind == "conformer":
        return ConformerEncoder(ConformerEncoderConfig(dim=8, heads=2, ffn_dim=16, layers=2, conv_kernel=5), 12).eval()
    return TransformerEncoder(TransformerEncoderConfig(dim=8, heads=2, ffn_dim=16, layers=2), 12).eval()


@pytest.mark.parametrize("kind", ["conformer", "transformer"])
@given(lengths=st.lists(st.integers(0, 50), min_size=1, max_size=3), extra=st.integers(0, 9), seed=st.integers(0, 9))
@torch.no_grad()
def test_subsampling_encoders_ignore_padding(kind: str, lengths: list[int], extra: int, seed: int) -> None:
    encoder = small_encoder(kind)
    rows = [noise(length, seed=seed + index, width=12) for index, length in enumerate(lengths)]
    hidden, sizes = encoder(*pad(rows, extra))
    assert hidden.isfinite().all()
    for index, row in enumerate(rows):
        alone, size = encoder(*pad([row]))
        assert int(size) == int(sizes[index]) == max(subsampled(len(row)), 0)
        close(hidden[index, : int(size)], alone[0, : int(size)], 1e-5)
        assert not hidden[index, int(size) :].any()


def test_transformer_encoder_is_permutation_free() -> None:
    """Absolute positions: the same frames in another place give other rows."""
    encoder = small_encoder("transformer")
    rows = noise(30, seed=1, width=12)
    hidden, _ = encoder(*pad([torch.cat([rows, rows])]))
    assert (hidden[0, :5] - hidden[0, 8:13]).abs().max() > 1e-3


def test_relative_shift_is_the_reference_s() -> None:
    """On a full row: prepend a zero column, reshape, drop the first row (Transformer-XL's trick)."""
    scores = torch.randn(2, 3, 6, 6)
    padded = torch.nn.functional.pad(scores, (1, 0)).view(2, 3, 7, 6)
    close(relative_shift(scores, torch.tensor([6, 6])), padded[:, :, 1:].reshape(2, 3, 6, 6), 0.0)


def test_length_mask() -> None:
    assert length_mask(torch.tensor([0, 2]), 3).tolist() == [[False] * 3, [True, True, False]]


@pytest.mark.parametrize("kind", ["conformer", "transformer"])
def test_transformer_family_trains(kind: str) -> None:
    """Gradients reach every parameter, in training mode, for utterances of unequal lengths."""
    encoder = small_encoder(kind).train()
    hidden, _ = encoder(*pad([noise(40, seed=1, width=12), noise(21, seed=2, width=12)]))
    (hidden * torch.randn_like(hidden)).sum().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in encoder.parameters())


def test_a_model_of_every_kind_has_its_own_parts() -> None:
    config = ModelConfig(vocab_size=9, encoder=TransformerEncoderConfig(dim=8, heads=2, ffn_dim=16, layers=1))
    assert isinstance(Paraformer(config).encoder, TransformerEncoder)
    assert isinstance(golden_model("aishell_conformer").encoder, ConformerEncoder)
