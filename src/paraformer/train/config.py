"""Settings of a training run. A recipe is a function that returns one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from paraformer.config import ChunkConfig, ModelConfig
from paraformer.data.augment import AugmentConfig
from paraformer.data.dataset import BatchConfig, JoinConfig
from paraformer.errors import ConfigError
from paraformer.train.systems import System


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """AdamW, its learning rate rising linearly and then falling by `schedule`."""

    peak_lr: float = 1e-3
    warmup_steps: int = 500
    schedule: Literal["cosine", "inverse_root"] = "cosine"
    """cosine: half a cosine down to 0 at the last step. inverse_root: as 1 / sqrt(step), which knows no last step."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 5.0


@dataclass(frozen=True, kw_only=True)
class BadStepConfig:
    """What is a bad step, and what happens then. Its utterances are named in events.jsonl; the weights stay."""

    action: Literal["skip", "stop"] = "skip"
    divergence: float = 100.0
    """A gradient norm so many times its running mean is as bad as one that is not finite."""
    in_a_row: int = 10
    """So many end the run even where each would be skipped."""


@dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """Steps that see the input in windows, exactly as a live session does; the others see whole utterances."""

    chunks: tuple[ChunkConfig, ...] = (ChunkConfig(),)
    """One is drawn for every live step. The first is what the model is measured with."""
    probability: float = 0.3
    """Share of live steps among all."""
    start: float = 0.2
    """Share of the steps that come before the first live one."""

    def __post_init__(self) -> None:
        if not self.chunks:
            raise ConfigError("live.chunks is empty: name at least one chunk setting, or set live to None")

    @property
    def always(self) -> bool:
        """Whether the model never sees a whole utterance, and so is measured live alone."""
        return self.probability >= 1 and self.start <= 0


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that determines a run, apart from where its data lie and where its results go."""

    model: ModelConfig
    """vocab_size 0 and ctc_units 0 are filled in from the training texts."""
    train_sets: tuple[str, ...]
    """Names of prepared archives."""
    train_h: float | None = None
    """Hours of them that are trained on, drawn utterance by utterance; less is always part of more. None: all."""
    system: System = "paraformer"
    """autoregressive: the encoder with a Transformer decoder that writes token after token, to compare with; it sees
    whole utterances only, its decoder starts from nothing, and it becomes no bundle."""
    steps: int
    dev_set: str
    init: str | None = None
    """What the run starts from: a model directory, or a file of weights that another run left beside or below its
    setup.json. Vocabulary and CMVN come along; the sizes in `model` must be the same."""
    init_encoder: str | None = None
    """The same, but of a model whose encoder and CTC layer alone are taken; everything else starts from nothing.
    "whisper:DIR" takes a Whisper's encoder, with the settings that `paraformer.checkpoint.whisper.settings` gives."""
    extend_vocabulary: bool = False
    """Characters of the training texts that the vocabulary of `init` lacks become tokens."""
    lora_rank: int | None = None
    """Train a change of this rank to each linear layer, and leave all other weights of `init` as they are."""
    test_sets: tuple[str, ...] = ()
    noise_set: str | None = None
    """Prepared archive of noises that augmentation mixes in."""
    learn_noise: bool = False
    """Noises are also utterances of their own, in which nothing is said."""
    held_out: int = 100
    """Utterances of the first training set kept for measuring."""
    dev_utterances: int = 60
    """Utterances of dev_set decoded during training; all of them at the end."""
    batch: BatchConfig = field(default_factory=BatchConfig)
    join: JoinConfig = field(default_factory=JoinConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    easy_epochs: int = 0
    """Epochs at the start in which clips stay single and nearly clean: alignment is found in short utterances."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    live: LiveConfig | None = field(default_factory=LiveConfig)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of matrix products; weights, losses and sums stay float32."""
    workers: int = 1
    seed: int = 0
    accumulate: int = 1
    """Batches of each process that one step adds up."""
    sharded: bool = False
    """Several processes divide parameters and optimiser among them (FSDP2) instead of each holding all (DDP)."""
    on_bad_step: BadStepConfig = field(default_factory=BadStepConfig)
    log_steps: int = 20
    save_s: float = 180.0
    """Wall-clock time between checkpoints."""
    measure_steps: int = 500
    """Steps between measurements on dev_set."""
    keep: int = 5
    """Weights kept for averaging: those of the measurements with the lowest CER on dev_set."""
    patience: int | None = None
    """The run ends after so many measurements without a lower CER on dev_set; None: after `steps`."""

    card: Mapping[str, str] = field(default_factory=dict)
    """What the model card says besides what the run finds out: sources, licence."""

    def __post_init__(self) -> None:
        for name in ("steps", "keep", "accumulate", "log_steps", "measure_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if self.system == "autoregressive" and (self.live is not None or self.init is not None):
            raise ConfigError(
                "an autoregressive system sees whole utterances and has a new decoder: no live, and no init but of its "
                "encoder (init_encoder)"
            )
        if self.init and self.init_encoder:
            raise ConfigError("init and init_encoder are both given: name one model to start from")
        if not self.train_sets:
            raise ConfigError("train_sets is empty: name at least one prepared archive")
        if (self.extend_vocabulary or self.lora_rank is not None) and self.init is None:
            raise ConfigError("extend_vocabulary and lora_rank change a model that is there: name it in init")
        if self.lora_rank is not None and (self.lora_rank < 1 or self.sharded):
            raise ConfigError("lora_rank must be at least 1, and goes with whole models (sharded=False)")
