"""Fine-tuning: a small change to a model that is there, on the ordinary loop, and an ordinary bundle at the end."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from importlib.resources import files
from pathlib import Path

import funasr_dirs
import numpy as np
import pytest
import soundfile
import tiny
import tiny_bundle
import torch
from safetensors.numpy import load_file
from speech_archives import RATE, sound_of, write_archive
from training import CONFIG, TEXTS, events, prepared, stopping_after

import paraformer
from paraformer.bundle import Bundle
from paraformer.checkpoint import convert, funasr, native, open_any
from paraformer.config import ChunkConfig, TrainingChunk
from paraformer.errors import ConfigError, DataError
from paraformer.language import LanguageModel
from paraformer.loader import locate
from paraformer.train.checkpoints import newest
from paraformer.train.finetune import (
    Finetuning,
    configure,
    default_lr,
    default_steps,
    finetune,
    live_steps,
    objective_of,
)
from paraformer.train.finish import finish
from paraformer.train.loop import train
from paraformer.weights import storage

SAMPLES = files("paraformer") / "samples"


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tones")
    for number, text in enumerate(TEXTS):
        soundfile.write(directory / f"{number}.wav", sound_of(text), RATE)
    rows = "".join(f"{directory / f'{number}.wav'},{text}\n" for number, text in enumerate(TEXTS))
    (directory / "tones.csv").write_text("path,text\n" + rows, encoding="utf-8")
    return directory / "tones.csv"


def plan(data: Path, out: Path, **changes: object) -> Finetuning:
    values = {"model": tiny_bundle.directory(), "data": data, "out": out, "steps": 4, "gate": False, **changes}
    return Finetuning(**values)


def size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return open_any(directory)[1].state_dict()


def test_the_result_is_an_ordinary_bundle_hardly_larger_than_the_original(tones: Path, tmp_path: Path) -> None:
    result = finetune(plan(tones, tmp_path / "out", general=tones))
    assert not multiprocessing.active_children(), "the processes that load batches have ended"
    bundle = Bundle.open(result.bundle)
    bundle.verify()
    assert bundle.tokens == (*tiny.TOKENS[:-1], "二", "四", "<unk>")
    assert bundle.config.live == tiny.config().live
    rows = 2 * (2 * tiny.config().encoder.dim + 1) * 4
    assert (result.bundle / "model.safetensors").stat().st_size - (
        tiny_bundle.directory() / "model.safetensors"
    ).stat().st_size in range(rows, rows + 400)
    assert {path.name for path in result.bundle.iterdir()} == {"config.json", "model.safetensors"}
    assert isinstance(paraformer.load(result.bundle).transcribe(sound_of("一二")).text, str)
    assert isinstance(open_any(convert(result.bundle, tmp_path / "theirs"))[0], Bundle)


def test_precision_and_language_model_of_the_original_stay(tones: Path, tmp_path: Path) -> None:
    bundle, model = open_any(tiny_bundle.directory())
    native.save(bundle, model, tmp_path / "half", stored="float16")
    size = len(bundle.tokens)
    LanguageModel.count([[3, 4, 5, size - 1]] * 4, size).save(tmp_path / "half" / "lm.safetensors")
    result = finetune(plan(tones, tmp_path / "out", model=tmp_path / "half"))
    tuned = Bundle.open(result.bundle)
    tuned.verify()
    kept = load_file(result.bundle / "model.safetensors")
    assert {array.dtype for array in kept.values()} == {np.dtype(np.float16)}
    wider = LanguageModel.open(result.bundle / "lm.safetensors", len(tuned.tokens))
    after = wider.log_probs(np.array([4]), np.array([5]), np.arange(len(tuned.tokens)))
    assert after.argmax() == len(tuned.tokens) - 1, "<unk> stands after the new tokens"
    assert paraformer.load(result.bundle).transcribe(sound_of("一二"))


def test_it_is_said_whether_it_is_better(tones: Path, tmp_path: Path) -> None:
    result = finetune(plan(tones, tmp_path / "out", general=tones))
    written = json.loads((tmp_path / "out" / "finetune.json").read_text(encoding="utf-8"))
    assert list(written["results"]) == ["new domain", "general"]
    assert written["results"]["general"]["utterances"] == len(TEXTS)
    assert written["new_tokens"] == ["二", "四"]
    card = Bundle.open(result.bundle).card
    assert card["fine_tuned"]["results"] == [str(one) for one in result.verdicts]
    for one in result.verdicts:
        assert str(one).split(", ")[0].split(": ")[1] in ("better", "worse", "not told apart")
        assert written["results"][one.name]["verdict"] in str(one)
    assert card["averaged"] != ["a", "b"]
    assert "nothing, live" not in card["errors"], "the original's error rates are not those of the new model"


def test_low_rank_changes_are_merged_and_leave_all_else_as_it_was(tones: Path, tmp_path: Path) -> None:
    known = tones.with_name("known.csv")
    lines = [line for line in tones.read_text(encoding="utf-8").splitlines() if not set("二四") & set(line)]
    known.write_text("\n".join(lines), encoding="utf-8")
    result = finetune(plan(known, tmp_path / "out", lora_rank=2, dev=known))
    before, after = weights(tiny_bundle.directory()), weights(result.bundle)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("encoder.blocks", "decoder.blocks", "decoder.final")) for name in changed)
    assert all(before[name].ndim == 2 for name in changed)
    assert size(result.bundle) < size(tiny_bundle.directory())
    for name in changed:
        rank = int(torch.linalg.matrix_rank((after[name] - before[name]).double(), rtol=1e-3))
        assert rank <= 3 * 2, "three measurements are averaged"


def test_low_rank_runs_resume_bit_for_bit(tones: Path, tmp_path: Path) -> None:
    straight = finetune(plan(tones, tmp_path / "straight", lora_rank=2))
    with stopping_after(2):
        stopped = finetune(plan(tones, tmp_path / "stopped", lora_rank=2))
    assert stopped.bundle is None
    assert stopped.signal is not None
    assert newest(tmp_path / "stopped").name == "step-0000002"
    resumed = finetune(plan(tones, tmp_path / "stopped", lora_rank=2))
    one, other = weights(straight.bundle), weights(resumed.bundle)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_funasr_directory_becomes_a_bundle_and_goes_back(tmp_path: Path, tones: Path) -> None:
    model = funasr_dirs.write_funasr(tmp_path / "theirs", "offline_A")
    result = finetune(plan(tones, tmp_path / "out", model=model, steps=2))
    original, tuned = funasr.load(model)[0], Bundle.open(result.bundle)
    assert tuned.tokens[: len(original.tokens) - 1] == original.tokens[:-1]
    assert set(tuned.tokens) - set(original.tokens) <= set("一二三四")
    assert {word: tuned.words[word] for word in original.words} == original.words
    again, _ = open_any(convert(result.bundle, tmp_path / "back"))
    assert (again.tokens, again.words, again.config.encoder) == (tuned.tokens, tuned.words, tuned.config.encoder)


def test_a_model_that_has_only_seen_chunks_is_tuned_and_measured_live(tmp_path: Path, tones: Path) -> None:
    model = funasr_dirs.write_funasr(tmp_path / "theirs", "online")
    result = finetune(plan(tones, tmp_path / "out", model=model, steps=2))
    bundle = Bundle.open(result.bundle)
    assert bundle.config.training_chunks == funasr.load(model)[0].config.training_chunks != ()
    assert list(bundle.card["errors"]) == ["dev, live"]


def test_speech_inside_an_archive_is_packed_and_trained_on(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "tones.tar", TEXTS)
    result = finetune(plan(archive, tmp_path / "out", steps=2))
    assert result.bundle is not None
    assert (tmp_path / "out" / "data" / "train").is_dir()
    assert any("cer" in event for event in events(tmp_path / "out"))


def test_a_wrong_name_is_found_before_the_run(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*nowhere"):
        finetune(plan(tones, tmp_path / "out", general=tmp_path / "nowhere"))
    assert not (tmp_path / "out").exists()


def test_changes_to_a_model_need_one(tmp_path: Path) -> None:
    original, _ = native.load(tiny_bundle.directory())
    config = configure(plan(tmp_path, tmp_path), original, 1.0)
    with pytest.raises(ConfigError, match="name it in init"):
        dataclasses.replace(config, init=None)
    with pytest.raises(ConfigError, match="lora_rank must be at least 1"):
        dataclasses.replace(config, lora_rank=0)
    with pytest.raises(ConfigError, match="sharded=False"):
        dataclasses.replace(config, lora_rank=1, sharded=True)


def test_too_few_utterances_want_a_dev_set(tones: Path, tmp_path: Path) -> None:
    few = tones.with_name("few.csv")
    few.write_text("\n".join(tones.read_text(encoding="utf-8").splitlines()[:3]), encoding="utf-8")
    with pytest.raises(DataError, match=r"2 usable utterances.*name a dev set"):
        finetune(plan(few, tmp_path))


def test_settings_follow_from_the_model_and_the_hours(tmp_path: Path) -> None:
    assert [default_steps(h, 150) for h in (0.1, 10, 10_000)] == [200, 1200, 20_000]
    assert default_lr(tiny.config("whisper"), lora=False) == pytest.approx(default_lr(tiny.config(), lora=False) / 5)
    assert default_lr(tiny.config(), lora=True) == pytest.approx(4 * default_lr(tiny.config(), lora=False))
    original, _ = native.load(tiny_bundle.directory())
    config = configure(plan(tmp_path, tmp_path, steps=None, peak_lr=0.5), original, 1.0)
    assert (config.steps, config.optimiser.peak_lr, config.held_out) == (200, 0.5, 0)


def test_live_steps_are_for_models_that_recognise_live() -> None:
    live, whole = tiny.config(), dataclasses.replace(tiny.config(), live=None)
    chunked = dataclasses.replace(live, training_chunks=(TrainingChunk(size=10, stride=10),))
    assert live_steps(live, "auto").chunks == (live.live,)
    assert live_steps(whole, "auto") is None
    assert live_steps(live, "off") is None
    assert live_steps(whole, "on").chunks == (ChunkConfig(),)
    assert live_steps(chunked, "auto").always, "it has never seen a whole utterance"
    with pytest.raises(ConfigError, match="would unlearn it"):
        live_steps(chunked, "off")
    deaf = dataclasses.replace(whole, decoder=dataclasses.replace(whole.decoder, shift=0))
    with pytest.raises(ConfigError, match="whole utterances only"):
        live_steps(deaf, "on")


def test_units_that_a_bundle_does_not_name_are_not_trained() -> None:
    objective = dataclasses.replace(tiny.config().objective, ctc_weight=0.3)
    own, shared = (
        dataclasses.replace(tiny.config(), objective=dataclasses.replace(objective, ctc_units=units))
        for units in (7, 0)
    )
    bundle, _ = native.load(tiny_bundle.directory())
    assert objective_of(dataclasses.replace(bundle, config=own)).ctc_weight == 0
    assert objective_of(dataclasses.replace(bundle, config=shared)).ctc_weight == 0.3
    named = dataclasses.replace(bundle, config=own, units=tuple("abcdef"))
    assert objective_of(named) == own.objective


def full_disk(*_: object) -> None:
    raise OSError("disk full")


def test_a_syllable_layer_whose_units_are_named_is_trained_further(tmp_path: Path) -> None:
    """What a run has made keeps its CTC layer; characters whose syllables it lacks are not in the CTC targets."""
    data = prepared(tmp_path / "speech")
    run = dataclasses.replace(CONFIG, steps=2, measure_steps=2, save_s=1e9)
    train(run, data, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bundle, "save", full_disk)
        with pytest.raises(OSError, match="disk"):
            finish(run, data, tmp_path / "run", best=1)
    assert not [path for path in (tmp_path / "run").iterdir() if "bundle" in path.name]  # all of it or nothing
    original = Bundle.open(finish(run, data, tmp_path / "run", best=1))
    assert original.units == ("er4", "san1", "si4", "yi1")
    result = finetune(plan(data / "tones", tmp_path / "out", model=tmp_path / "run" / "bundle", steps=2))
    tuned = Bundle.open(result.bundle)
    assert (tuned.units, tuned.config.objective) == (original.units, original.config.objective)
    before, after = weights(original.directory), weights(result.bundle)
    assert before.keys() == after.keys()
    assert not torch.equal(before["ctc.weight"], after["ctc.weight"])
    assert all(event["ctc"] > 0 for event in events(tmp_path / "out") if "ctc" in event)


@pytest.mark.slow
def test_the_embedded_model_learns_the_shipped_samples(tmp_path: Path) -> None:
    texts = json.loads((SAMPLES / "texts.json").read_text(encoding="utf-8"))
    for name in texts:  # as it hears all of them right, under as much noise as speech
        samples, rate = soundfile.read(str(SAMPLES / name))
        noise = np.random.default_rng(0).standard_normal(len(samples)) * samples.std()
        soundfile.write(tmp_path / name, samples + noise, rate)
    rows = "".join(f"{name},{said['text']}\n" for name, said in texts.items())
    (tmp_path / "samples.csv").write_text("path,text\n" + rows, encoding="utf-8")
    data = tmp_path / "samples.csv"
    changes = {"model": locate(None), "dev": data, "steps": 12, "peak_lr": None, "gate": True}
    result = finetune(plan(data, tmp_path / "out", **changes))
    (verdict,) = result.verdicts
    assert verdict.comparison.after < verdict.comparison.before
    # Two bytes a number: in 8 bits, as the embedded weights are, what a few steps change would be rounded away.
    assert storage(result.bundle / "model.safetensors") == "float16"
    numbers = sum(tensor.numel() for tensor in weights(locate(None)).values())
    assert abs((result.bundle / "model.safetensors").stat().st_size / (2 * numbers) - 1) < 0.01
    assert np.isfinite(verdict.comparison.probability_better)
