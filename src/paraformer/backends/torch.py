"""PyTorch: every kind of model, any device torch has."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from functools import cache, partial
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from paraformer.backends.base import (
    Decoded,
    LiveState,
    OfOneProcess,
    check_streaming,
    committed,
    fine_rows,
    pad_rows,
    split_state,
    stack_states,
    unit_rows,
)
from paraformer.backends.captured import Captured, Function, Tensors, bucket, filled, to_bfloat16
from paraformer.checkpoint import strict
from paraformer.companions.detector import FsmnConfig
from paraformer.companions.voices import CamppConfig
from paraformer.config import ChunkConfig, ModelConfig
from paraformer.errors import ConfigError, UnsupportedModel
from paraformer.kinds import ALIGNER, DETECTOR, PUNCTUATION, VOICES, Kind
from paraformer.model.aligner import Aligner
from paraformer.model.detector import Detector
from paraformer.model.encoded import Encoded
from paraformer.model.paraformer import Heard, Paraformer, ParaformerState, Whole
from paraformer.model.punctuation import PunctuationModel
from paraformer.model.voices import Voices
from paraformer.punctuation.config import PunctuationConfig
from paraformer.weights import check_finite, checked


def check_device(name: str) -> None:
    """Raise ConfigError, with the devices that there are, unless torch can compute on the one of this name."""
    try:
        device = torch.device(name)
        # Asked to compute: on some devices a tensor can be made, and nothing done with it.
        usable = device.type != "meta" and torch.ones(1, device=device).sum().item() == 1
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        found, reason = ["cpu"], str(error).strip().split("\n")[0]
        if torch.accelerator.is_available():
            kind = torch.accelerator.current_accelerator()
            found += [f"{kind}:{index}" for index in range(torch.accelerator.device_count())]
        told = f" (torch: {reason})" if len(reason) < _READABLE else ""
        raise ConfigError(f"there is no device {name!r} here, but {', '.join(found)}{told}") from error
    if not usable:
        raise ConfigError(f"device {name!r} computes nothing; use 'cpu'")


_READABLE = 80
"""Characters of a reason; longer ones list what was compiled into torch."""
_STATE = tuple(field.name for field in fields(ParaformerState))


class TorchBackend(OfOneProcess):
    """Runs a Paraformer module, which is put into evaluation mode and into the precision asked for."""

    def __init__(
        self,
        model: Paraformer,
        device: str | torch.device = "cpu",
        threads: int | None = None,
        *,
        precision: Literal["float32", "bfloat16"] = "float32",
        few_shapes: bool | None = None,
    ) -> None:
        """threads: see `set_threads`; None leaves it. precision: of matrix products.

        few_shapes: fill batches up to the shapes of `captured`, each of which CUDA captures once; None: on CUDA.
        Raises ModelError for weights that are not finite.
        """
        if threads is not None:
            set_threads(threads)
        for name, tensor in model.state_dict().items():
            check_finite(name, _numpy(tensor))
        if precision == "bfloat16":
            to_bfloat16(model)
        self.model = model.to(device).eval()
        self.device = torch.device(device)
        self._precision = precision
        self._few_shapes = self.device.type == "cuda" if few_shapes is None else few_shapes
        self._hear, self._spell, self._step = Captured(self._heard), Captured(self._spelt), Captured(self._stepped)
        self._process = os.getpid()
        _watch_forks()

    @property
    def config(self) -> ModelConfig:
        """Settings of the model."""
        return self.model.config

    @property
    def name(self) -> str:
        """See Backend.name."""
        return f"torch {self._precision}"

    def _computing(self) -> AbstractContextManager[object]:
        """Products in the precision asked for. No weight is cast, so no cast one needs to be kept."""
        if self._precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)

    @torch.inference_mode()
    def whole(self, feats: Sequence[np.ndarray], hotwords: np.ndarray | None = None) -> list[Decoded]:
        """See Backend.whole."""
        with self._computing():
            if self._few_shapes and self.config.hotwords is None:
                result = self._in_few_shapes(feats)
            else:
                padded, lengths = pad_rows(feats)
                named = None if hotwords is None else self._put(hotwords)
                result = self.model.recognize(self._put(padded), self._put(lengths), hotwords=named)
        counts, rows = result.counts.tolist(), result.lengths.tolist()
        logits, weights = _numpy(result.log_probs), _numpy(result.weights)
        fine = [None] * len(feats) if result.fine is None else fine_rows(_numpy(result.fine), rows, self.config)
        units = unit_rows(None if result.units is None else _numpy(result.units), counts[: len(feats)])
        return [Decoded.of(logits[i, : counts[i]], weights[i, : rows[i]], fine[i], units[i]) for i in range(len(feats))]

    def _in_few_shapes(self, feats: Sequence[np.ndarray]) -> Whole:
        """The model's `recognize` in two parts, between which it is waited for the number of tokens."""
        padded, lengths = pad_rows(filled(feats), bucket(max(map(len, feats))))
        heard = self._hear(None, self._put(padded), self._put(lengths))
        counts = heard[-1]
        # At least one token, since a decoder that is captured must have rows to compute.
        embeds, log_probs, *further = self._spell(bucket(max(1, int(counts.max()))), *heard)
        hidden, lengths_, _, weights, _ = heard
        names = [name for name, there in self._further.items() if there]
        return Whole(hidden, lengths_, weights, embeds, counts, log_probs, **dict(zip(names, further, strict=True)))

    @property
    def _further(self) -> dict[str, bool]:
        """What a whole utterance comes to beside its text, and whether it does with this model."""
        return {"fine": self.config.predictor.timing is not None, "units": self.config.units > 0}

    def _heard(self, _: Hashable, feats: Tensor, lengths: Tensor) -> Tensors:
        heard = self.model.hear(feats, lengths)
        return heard.encoded.hidden, heard.encoded.lengths, heard.hidden, heard.weights, heard.counts

    def _spelt(
        self, tokens: Any, hidden: Tensor, lengths: Tensor, rows: Tensor, weights: Tensor, counts: Tensor
    ) -> Tensors:
        result = self.model.spell(Heard(Encoded(hidden, weights, lengths), rows, weights, counts), tokens)
        return (result.embeds, result.log_probs, *(one for one in (result.fine, result.units) if one is not None))

    @torch.inference_mode()
    def encode_hotwords(self, words: Sequence[Sequence[int]]) -> np.ndarray:
        """See ListeningBackend.encode_hotwords."""
        return _numpy(self.model.encode_hotwords(words))

    def init_state(self, chunk: ChunkConfig) -> LiveState:
        """See Backend.init_state. Raises UnsupportedModel if the model was not made for live recognition."""
        check_streaming(self.config)
        arrays = {name: _numpy(tensor) for name, tensor in self.model.init_state(1, chunk).tensors().items()}
        return split_state(arrays, unlimited=False)[0]

    @torch.inference_mode()
    def step(
        self, frames: Sequence[np.ndarray], final: Sequence[bool], states: Sequence[LiveState], chunk: ChunkConfig
    ) -> tuple[list[Decoded], list[LiveState]]:
        """See Backend.step."""
        count = len(frames)
        unlimited = chunk.encoder_look_back < 0
        step: Function = self._stepped
        tokens, size = None, 0
        if self._few_shapes:
            frames, final, states = filled(frames), filled(final), filled(states)
            tokens, size = self._most_tokens(chunk), chunk.chunk
            step = self._stepped if unlimited else self._step  # the past grows with every step: no shape comes twice
        # Up to a whole chunk, so that a last step of fewer rows has the shape of the others.
        padded, counts = pad_rows(frames, size)
        stacked = stack_states(states)
        inputs = (padded, counts, np.array(final), *(stacked[name] for name in _STATE))
        batch = [self._put(array) for array in inputs]
        with self._computing():
            fired, logits, weights, *state = map(_numpy, step((chunk, tokens), *batch))
        units = unit_rows(state.pop() if self.config.units else None, fired.tolist())
        decoded = [
            Decoded.of(logits[i, : fired[i]], weights[i, committed(chunk, int(counts[i]), final[i])], units=units[i])
            for i in range(len(frames))
        ]
        following = dict(zip(_STATE, state, strict=True))
        return decoded[:count], split_state(following, unlimited=unlimited)[:count]

    def _stepped(self, setting: Any, frames: Tensor, counts: Tensor, final: Tensor, *state: Tensor) -> Tensors:
        chunk, tokens = setting
        before = ParaformerState.from_tensors(dict(zip(_STATE, state, strict=True)))
        output, after = self.model.step(frames, counts, final, before, chunk, tokens)
        units = () if output.units is None else (output.units,)
        return output.counts, output.logits, output.weights, *after.tensors().values(), *units

    def _most_tokens(self, chunk: ChunkConfig) -> int:
        """In one live step: every row weighs no more than 1, or what it is multiplied with, and one token is begun."""
        predictor = self.config.predictor
        return int((chunk.context + chunk.chunk) * predictor.smooth_factor + predictor.tail_threshold + 1)

    def _put(self, array: np.ndarray) -> Tensor:
        if self.device.type != "cpu" and os.getpid() != self._process:
            raise UnsupportedModel(
                f"this model was put on {self.device} before the process forked, and a forked process cannot use it: "
                "load the model in each process, or start them with multiprocessing's 'spawn'"
            )
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


class TorchAligner:
    """The plain form of `paraformer.companions.aligner.AlignerNetwork`."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, np.ndarray], device: str = "cpu") -> None:
        """Raises CheckpointError unless the weights are exactly those of the settings, ConfigError for a device."""
        with torch.device("meta"):
            model = Aligner(config)
        self.model, self.device = _filled(model, weights, "the aligner", device), torch.device(device)

    @torch.inference_mode()
    def weights(self, feats: Sequence[np.ndarray], tokens: Sequence[int]) -> list[np.ndarray]:
        """See AlignerNetwork.weights; the utterances are one padded batch."""
        padded, lengths = pad_rows(feats)
        rows, counts = (torch.from_numpy(array).to(self.device) for array in (padded, lengths))
        ends = torch.tensor([count + 1 for count in tokens], device=self.device)
        fine, kept = self.model(rows, counts, ends)
        return fine_rows(_numpy(fine), kept.tolist(), self.model.config)


class TorchPunctuation:
    """The plain form of `paraformer.punctuation.network.Network`."""

    def __init__(self, config: PunctuationConfig, weights: Mapping[str, np.ndarray], device: str = "cpu") -> None:
        """Raises as TorchAligner."""
        with torch.device("meta"):
            model = PunctuationModel(config)
        self.model, self.device = _filled(model, weights, "the punctuation model", device), torch.device(device)

    @torch.inference_mode()
    def scores(self, ids: np.ndarray, heard: int | None = None) -> np.ndarray:
        """See Network.scores."""
        heard_of = None if heard is None else torch.tensor([heard], device=self.device)
        length = torch.tensor([len(ids)], device=self.device)
        return _numpy(self.model(torch.from_numpy(ids)[None].to(self.device), length, heard_of)[0])


class TorchDetector:
    """The plain form of `paraformer.segment.fsmn.FsmnNetwork`."""

    def __init__(self, config: FsmnConfig, weights: Mapping[str, np.ndarray], device: str = "cpu") -> None:
        """Raises as TorchAligner."""
        self.config, self.weights = config, checked("the detector", weights, config.shapes())
        with torch.device("meta"):
            model = Detector(config)
        self.model, self.device = _filled(model, self.weights, "the detector", device), torch.device(device)

    def init_state(self) -> tuple[np.ndarray, ...]:
        """See FsmnNetwork.init_state."""
        return tuple(map(_numpy, self.model.init_state(1)))

    @torch.inference_mode()
    def step(self, feats: np.ndarray, past: Sequence[np.ndarray]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """See FsmnNetwork.step."""
        if not len(feats):  # which convolutions refuse
            return np.zeros((0, self.config.outputs), np.float32), tuple(past)
        before = [torch.from_numpy(rows).to(self.device) for rows in past]
        scores, following = self.model(torch.from_numpy(feats)[None].to(self.device), before)
        return _numpy(scores[0]), tuple(map(_numpy, following))


class TorchVoices:
    """The plain form of the network of `paraformer.speakers.VoiceEncoder`."""

    def __init__(self, config: CamppConfig, weights: Mapping[str, np.ndarray], device: str = "cpu") -> None:
        """Raises as TorchAligner."""
        with torch.device("meta"):
            model = Voices(config)
        self.model, self.device = _filled(model, weights, "the speaker model", device), torch.device(device)

    @torch.inference_mode()
    def embed(self, feats: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See VoiceEncoder.embed; those of one length are a batch."""
        found: dict[int, np.ndarray] = {}
        for length in {len(rows) for rows in feats}:
            # Not padded: means over time are taken on the way.
            places = [place for place, rows in enumerate(feats) if len(rows) == length]
            batch = torch.from_numpy(np.stack([feats[place] for place in places])).to(self.device)
            found |= zip(places, _numpy(self.model(batch)), strict=True)
        return [found[place] for place in range(len(feats))]


Plain = TypeVar("Plain", bound=nn.Module)


def _filled(model: Plain, weights: Mapping[str, np.ndarray], source: str, device: str) -> Plain:
    """A skeleton with these weights, on a device. Raises CheckpointError where they do not fit."""
    check_device(device)
    # Copied: torch warns of arrays that cannot be written to, as those of a mapped file.
    tensors = {name: torch.from_numpy(np.array(weights[name], np.float32)) for name in weights}
    return strict.fill(model, tensors, {name: name for name in model.state_dict()}, source).to(device)


NETWORKS: Mapping[Kind, Callable[[Any, Mapping[str, np.ndarray], str], Any]] = {
    ALIGNER: TorchAligner,
    PUNCTUATION: TorchPunctuation,
    DETECTOR: TorchDetector,
    VOICES: TorchVoices,
}
"""Of the models that stand beside a recogniser."""


def set_threads(threads: int) -> None:
    """Set torch's own number of CPU threads, 0 for one per core: one setting for the process."""
    torch.set_num_threads(threads or os.cpu_count() or 1)


@cache
def _watch_forks() -> None:
    """A forked child has none of torch's threads, and would wait for them: there one thread has to do."""
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


def _numpy(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16.
    array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array
