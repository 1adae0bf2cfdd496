"""From the checkpoints of a run to a bundle: average, measure whole and live, write weights and model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from paraformer.bundle import Bundle, making, replacing
from paraformer.checkpoint import native
from paraformer.config import ChunkConfig
from paraformer.data.dataset import SpeechDataset
from paraformer.data.prepare import load_cuts
from paraformer.evaluate.cer import total_errors
from paraformer.model.objective import Trainable
from paraformer.model.paraformer import Paraformer
from paraformer.train import parallel
from paraformer.train.checkpoints import average, best_weights, read_weights
from paraformer.train.config import TrainConfig, new_model
from paraformer.train.events import EVENTS, read_events, throughput
from paraformer.train.measure import decode_batches, told
from paraformer.train.speech import Setup, Speech, set_up
from paraformer.weights import Storage

AVERAGED = "averaged.safetensors"


def finish(config: TrainConfig, data: Path, out: Path, best: int, *, stored: Storage = "float32") -> Path:
    """Average the best `best` weights of `out` and write the bundle `out`/bundle; returns its path.

    stored: how its weights are kept.
    Every pair of reference and hypothesis goes to `out`/decoded-SET-MODE.jsonl, the error rates to the model card.
    Of another system, which no recogniser opens, `out`/averaged.safetensors and `out`/card.json are all.
    Raises CheckpointError where the run left no weights.
    """
    speech = Speech.load(config, data)
    setup = set_up(config, speech, out)
    files = best_weights(out)[:best]
    model = averaged(config.system, setup, files)
    errors = measure_all(config, setup, model, data, out)
    speed = throughput(read_events(out / EVENTS))
    card = {
        "trained_on": trained_on(config, data),
        "augmented_with": config.noise_set,
        "averaged": [file.name for file in files],
        "errors": errors,
        **({"speed": str(speed)} if speed else {}),
        **config.card,
    }
    if not isinstance(model, Paraformer) or config.system != "paraformer":
        return _weights_and_card(model, card, out)
    directory = out / "bundle"
    # In the order of their numbers, by which a bundle knows them.
    units = tuple(sorted(setup.syllables, key=setup.syllables.__getitem__))
    bundle = Bundle(None, setup.model, setup.tokens, setup.cmvn, setup.words, card, units)
    with making(directory) as made:
        native.save(bundle, model, made, stored=stored)
    return directory


def averaged(system: str, setup: Setup, files: Sequence[Path]) -> Trainable:
    """A model of averaged weights, where this process computes. Raises CheckpointError where there are none."""
    model = new_model(system, setup.model)
    # Weights near the end of a run scatter around something better than each of them.
    model.load_state_dict(average([read_weights(file) for file in files]))
    return model.to(parallel.device())


def _weights_and_card(model: nn.Module, card: Mapping[str, Any], out: Path) -> Path:
    path = out / AVERAGED
    with replacing(path) as temporary:
        # Safetensors refuses views, and would keep where the tensor was.
        save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, temporary)
    with replacing(out / "card.json") as temporary:
        temporary.write_text(json.dumps(card, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path


def measure_all(config: TrainConfig, setup: Setup, model: Trainable, data: Path, out: Path) -> dict[str, str]:
    """Errors on all of dev_set and test_sets, whole and (where the run trained for it) live, in words."""
    # Whole too, unless it was never trained so: nobody will use it that way.
    modes: dict[str, ChunkConfig | None] = {} if config.live is not None and config.live.always else {"whole": None}
    if config.live is not None:
        modes["live"] = config.live.chunks[0]
    dataset = SpeechDataset(setup.symbols, setup.model.frontend, setup.cmvn)
    hearing = "" if setup.model.hotwords is None else ", with hotwords drawn from it"
    errors = {}
    for name in (config.dev_set, *config.test_sets):
        batches = list(told(config, setup, load_cuts(data, name), dataset))
        for mode, chunk in modes.items():
            pairs = decode_batches(model, batches, setup.symbols.vocabulary, chunk)
            _write_lines(out / f"decoded-{name}-{mode}.jsonl", pairs)
            errors[f"{name}, {mode}{hearing}"] = str(total_errors(pairs))
    return errors


def trained_on(config: TrainConfig, data: Path) -> dict[str, float]:
    """Hours of each set that was trained on; where only a part of them was, that as well."""
    sets = {name: round(sum(cut.duration for cut in load_cuts(data, name)) / 3600, 2) for name in config.train_sets}
    return sets if config.train_h is None else {**sets, "drawn of these": config.train_h}


def _write_lines(path: Path, pairs: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"reference": r, "hypothesis": h}, ensure_ascii=False) for r, h in pairs]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
