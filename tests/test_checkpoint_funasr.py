from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from funasr_dirs import GOLDEN, golden_settings, golden_tensors, write_funasr

from paraformer import checkpoint
from paraformer.backends import native
from paraformer.checkpoint import (
    funasr,
    funasr_config,
    funasr_directory,
    funasr_parts,
    funasr_writer,
    strict,
    torch_file,
)
from paraformer.checkpoint.keys import funasr_names
from paraformer.config import (
    ChunkConfig,
    ConformerEncoderConfig,
    FrontendConfig,
    ModelConfig,
    ObjectiveConfig,
    PredictorConfig,
    SanmDecoderConfig,
    SanmEncoderConfig,
    TrainingChunk,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
)
from paraformer.errors import CheckpointError, ConfigError, ModelError, ModelNotFound, UnsupportedModel

LIVE = ChunkConfig(left=5, chunk=10, right=5, encoder_look_back=4, decoder_look_back=1)
LARGE = ModelConfig(vocab_size=8404, decoder=SanmDecoderConfig(shift=5), live=LIVE)
CHUNKS = (TrainingChunk(size=12, stride=8), TrainingChunk(size=15, stride=10))

SANM = ModelConfig(
    vocab_size=50,
    encoder=SanmEncoderConfig(dim=32, ffn_dim=64, layers=3, dropout=0.0, attention_dropout=0.0),
    predictor=PredictorConfig(dropout=0.0),
    decoder=SanmDecoderConfig(ffn_dim=64, layers=3, attention_layers=3, dropout=0.0, attention_dropout=0.0),
)
CONFIGS = {
    "offline_A": SANM,
    "offline_B": replace(SANM, decoder=replace(SANM.decoder, layers=4, attention_layers=2)),
    "online": replace(SANM, decoder=replace(SANM.decoder, shift=5), training_chunks=CHUNKS, live=LIVE),
    "aishell_conformer": ModelConfig(
        vocab_size=50,
        frontend=FrontendConfig(lfr_m=1, lfr_n=1),
        encoder=ConformerEncoderConfig(dim=32, ffn_dim=48, layers=2, dropout=0.0, positional_dropout=0.0),
        predictor=PredictorConfig(version=1, dropout=0.0),
        decoder=TransformerDecoderConfig(ffn_dim=48, layers=2, dropout=0.0, positional_dropout=0.0),
        objective=ObjectiveConfig(ctc_weight=0.3, length_normalized=False, sampling_ratio=0.4, predict_eos=False),
    ),
}
"""What the settings of the golden models mean."""


def changed(name: str, section: str, **settings) -> dict:
    """Golden settings with some of one section changed."""
    return {section: {**golden_settings(name)[section], **settings}}


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_golden_settings(name):
    assert funasr_config.read(golden_settings(name), 50) == CONFIGS[name]


@pytest.mark.parametrize("config", [*CONFIGS.values(), LARGE], ids=[*CONFIGS, "large"])
def test_written_settings_read_back(config):
    again = funasr_config.read(yaml.safe_load(yaml.safe_dump(funasr_writer.write(config))), config.vocab_size)
    # A streaming model of FunASR's must have chunks to train with: those of the live setting, where there are none.
    chunks = config.training_chunks or (CHUNKS[1:] if config.live else ())
    assert again == replace(config, training_chunks=chunks)


def test_the_published_large_settings_are_the_defaults():
    settings = golden_settings("online")
    for section in ("encoder_conf", "decoder_conf"):
        settings[section].update(linear_units=2048, dropout_rate=0.1)
    settings["encoder_conf"].update(output_size=512, num_blocks=50, attention_dropout_rate=0.1)
    settings["decoder_conf"].update(num_blocks=16, att_layer_num=16, src_attention_dropout_rate=0.1)
    settings["predictor_conf"].update(idim=512, dropout=0.1)
    config = funasr_config.read(settings, 8404)
    assert replace(config, training_chunks=()) == LARGE
    assert config.training_chunks == CHUNKS


@pytest.mark.parametrize(
    ("name", "changes", "kind", "message"),
    [
        (
            "online",
            {"model": "EParaformer"},
            UnsupportedModel,
            "E-Paraformer.*not supported yet; use the plain Paraformer",
        ),
        ("online", {"model": "BiCifParaformer"}, UnsupportedModel, "BiCifParaformer on SANMEncoderChunkOpt"),
        ("online", {"model": "SenseVoiceSmall"}, UnsupportedModel, "'SenseVoiceSmall', not Paraformer"),
        ("online", {"model": None}, UnsupportedModel, "kind None"),
        ("online", {"model": "Paraformer"}, UnsupportedModel, "Paraformer on SANMEncoderChunkOpt"),
        ("online", {"encoder": "EBranchformerEncoder"}, UnsupportedModel, "encoder 'EBranchformerEncoder'"),
        ("online", {"predictor": "CifPredictorV3"}, UnsupportedModel, "predictor 'CifPredictorV3'"),
        ("online", {"frontend": ["WavFrontend"]}, UnsupportedModel, "frontend"),
        ("online", {"tokenizer": "SentencepiecesTokenizer"}, UnsupportedModel, "tokenizer is 'Sentence"),
        ("online", {"normalize": "GlobalMVN"}, UnsupportedModel, "normalize is 'GlobalMVN'"),
        ("online", {"encoder_conf": [1]}, ConfigError, "encoder_conf must hold settings"),
        ("online", changed("online", "encoder_conf", surprise=1), ConfigError, "in encoder_conf: surprise"),
        ("online", changed("online", "decoder_conf", surprise=1), ConfigError, "in decoder_conf: surprise"),
        ("online", changed("online", "predictor_conf", surprise=1), ConfigError, "in predictor_conf: surprise"),
        ("online", changed("online", "predictor_conf", threshold=0.9), UnsupportedModel, "threshold is 0.9"),
        ("online", changed("online", "predictor_conf", idim=64), ConfigError, "idim is 64"),
        ("online", changed("online", "predictor_conf", l_order="1"), ConfigError, "l_order must be like 1, not '1'"),
        ("online", changed("online", "encoder_conf", num_blocks=2.5), ConfigError, "num_blocks must be like 6"),
        ("online", changed("online", "encoder_conf", attention_heads=5), ConfigError, "multiple of the heads"),
        ("online", changed("online", "encoder_conf", stride=[8]), ConfigError, "2 of chunk_size but only 1 of stride"),
        ("online", changed("online", "encoder_conf", stride="8"), ConfigError, "stride must be whole numbers"),
        ("online", changed("online", "encoder_conf", input_layer="conv2d"), UnsupportedModel, "'conv2d', but"),
        ("online", changed("online", "model_conf", predictor_bias=2), ConfigError, "predictor_bias must be 0 or 1"),
        ("online", changed("online", "model_conf", share_embedding=True), UnsupportedModel, "share_embedding is True"),
        ("online", changed("online", "frontend_conf", snip_edges=False), UnsupportedModel, "snip_edges is False"),
        (
            "aishell_conformer",
            changed("aishell_conformer", "encoder_conf", rel_pos_type="latest"),
            UnsupportedModel,
            "rel_pos_type is 'latest'",
        ),
    ],
)
def test_other_models_and_settings_are_refused_by_name(tmp_path, name, changes, kind, message):
    with pytest.raises(kind, match=message):
        funasr.load(write_funasr(tmp_path, name, settings=changes))


def test_settings_without_influence_are_ignored():
    settings = golden_settings("online")
    settings |= {
        "train_conf": {"max_epoch": 150},
        "specaug": "SpecAugLFR",
        "token_list": None,
        "unknown": {"deep": [1]},
    }
    settings["model_conf"] |= {"use_1st_decoder_loss": True, "report_cer": False}
    settings["frontend_conf"] |= {"dither": 1.0}
    assert funasr_config.read(settings, 50) == funasr_config.read(golden_settings("online"), 50)


def test_settings_that_say_the_same_in_other_words():
    settings = golden_settings("online")
    expected = funasr_config.read(settings, 50)
    settings["ctc_weight"] = settings["model_conf"].pop("ctc_weight")  # FunASR lets the top level override
    settings["decoder_conf"].update(sanm_shfit=None, num_blocks=1)
    settings["encoder_conf"]["encoder_att_look_back_factor"] = 4
    assert funasr_config.read(settings, 50) == expected


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_names_are_exactly_the_references(name):
    model = strict.skeleton(CONFIGS[name])
    names = funasr_names(CONFIGS[name], model.state_dict())
    shapes = {theirs: tensor.shape for theirs, tensor in golden_tensors(name).items()}
    assert {names[ours]: tensor.shape for ours, tensor in model.state_dict().items()} == shapes


def test_the_large_shape_is_the_published_one():
    with (GOLDEN / "state_dict_large.tsv").open(encoding="utf-8") as file:
        published = {row["key"]: json.loads(row["shape"]) for row in csv.DictReader(file, delimiter="\t")}
    model = strict.skeleton(LARGE)
    names = funasr_names(LARGE, model.state_dict())
    assert {names[name]: list(tensor.shape) for name, tensor in model.state_dict().items()} == published
    assert sum(parameter.numel() for parameter in model.parameters()) == 220_084_533


def test_transformer_encoders_have_names_too():
    config = replace(CONFIGS["aishell_conformer"], encoder=TransformerEncoderConfig(dim=32, ffn_dim=48, layers=1))
    names = funasr_names(config, strict.skeleton(config).state_dict())
    assert names["encoder.blocks.0.attention.q.weight"] == "encoder.encoders.0.self_attn.linear_q.weight"
    assert names["encoder.blocks.0.norm2.bias"] == "encoder.encoders.0.norm2.bias"


# -- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nesting", [(), ("state_dict",), ("model_state_dict",), ("model",), ("state_dict", "model")])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_old_nestings_prefixes_and_formats(tmp_path, nesting, prefix, zipped):
    expected = golden_tensors("offline_A")
    weights = {prefix + name: tensor for name, tensor in expected.items()}
    for key in reversed(nesting):
        weights = {key: weights, "epoch": 7, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    torch.save(weights, tmp_path / "model.pb", _use_new_zipfile_serialization=zipped)
    arrays = torch_file.read(tmp_path / "model.pb")
    assert set(arrays) == set(expected)
    assert all(np.array_equal(arrays[name], expected[name].numpy()) for name in expected)


def test_every_tensor_that_does_not_fit_is_named_as_funasr_names_it(tmp_path):
    weights = golden_tensors("online")
    del weights["encoder.encoders.1.norm1.bias"], weights["decoder.decoders3.0.norm1.bias"]
    weights["decoder.bias_output.weight"] = torch.zeros(1)
    weights["encoder.encoders0.0.norm1.weight"] = torch.zeros(80)
    with pytest.raises(CheckpointError) as caught:
        funasr.load(write_funasr(tmp_path, weights=weights))
    for words in (
        "model.pt",
        "2 missing: decoder.decoders3.0.norm1.bias, encoder.encoders.1.norm1.bias",
        "1 unexpected: decoder.bias_output.weight",
        "1 of the wrong shape: encoder.encoders0.0.norm1.weight is 80, not 560",
    ):
        assert words in str(caught.value)


class Malicious:
    """Pickled code: would create a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path, zipped):
    directory = write_funasr(tmp_path / "model")
    weights = {**golden_tensors("online"), "trap": Malicious(tmp_path / "sprung")}
    torch.save(weights, directory / "model.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"model\.pt was refused and nothing in it was run"):
        funasr.load(directory)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a checkpoint", b"\x80\x02.", bytes(3000)])
def test_damaged_weights_are_a_checkpoint_error(tmp_path, data):
    """In one sentence, whatever torch has to say of them."""
    directory = write_funasr(tmp_path)
    (directory / "model.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.pt .*[^ ]; get (the model|it) again") as error:
        funasr.load(directory)
    assert len(str(error.value)) - len(str(directory)) < 250


def test_truncated_weights_are_a_checkpoint_error(tmp_path):
    directory = write_funasr(tmp_path)
    path = directory / "model.pt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        funasr.load(directory)


@pytest.mark.parametrize("weights", [[1, 2], {"state_dict": {"a": 1}}, torch.zeros(3)])
def test_anything_but_tensors_by_name_is_a_checkpoint_error(tmp_path, weights):
    with pytest.raises(CheckpointError, match="does not hold tensors by name"):
        funasr.load(write_funasr(tmp_path, weights=weights))


# -- directories ------------------------------------------------------------------------------------------------------


def test_side_files(tmp_path):
    bundle, model = funasr.load(write_funasr(tmp_path))
    assert bundle.tokens[:4] == ("<blank>", "<s>", "</s>", "一")
    assert bundle.words == {"hello": ("he@@", "llo"), "world": ("world",)}
    assert bundle.cmvn is not None
    assert bundle.cmvn.shift.shape == (560,)
    assert bundle.card == {}
    assert not model.training


@pytest.mark.parametrize("metadata", [None, "{}", '{"model": {"am_model_name": "model.pb"}}'])
def test_usual_names_where_nothing_says_otherwise(tmp_path, metadata):
    directory = write_funasr(tmp_path)
    (directory / "configuration.json").unlink()
    if metadata is not None:
        (directory / "configuration.json").write_text(metadata)
    (directory / "model.pt").rename(directory / "model.pb")
    tokens = json.loads((directory / "tokens.json").read_text())
    (directory / "tokens.json").unlink()
    (directory / "tokens.txt").write_text("".join(f"{token}\n" for token in tokens))
    assert funasr.load(directory)[0].tokens == tuple(tokens)


def test_tokens_with_ids(tmp_path):
    path = tmp_path / "tokens.txt"
    path.write_text("<blank> 0\n你 1\n@ 2\n")
    assert funasr_directory.read_tokens(path) == ("<blank>", "你", "@")
    path.write_text("<blank> 0\n你 1\n@ 3\n")
    with pytest.raises(ModelError, match=r"tokens\.txt: the ids .* are not 0, 1, 2"):
        funasr_directory.read_tokens(path)


def test_named_files_stay_within_the_directory(tmp_path):
    directory = write_funasr(tmp_path / "model")
    (tmp_path / "outside.json").write_text("[]")
    metas = {"tokenizer_conf": {"token_list": "../outside.json"}, "init_param": str(tmp_path / "outside.json")}
    (directory / "configuration.json").write_text(json.dumps({"file_path_metas": metas}))
    assert len(funasr.load(directory)[0].tokens) == 50


@pytest.mark.parametrize("name", ["config.yaml", "model.pt", "tokens.json"])
def test_missing_files_are_named(tmp_path, name):
    directory = write_funasr(tmp_path)
    (directory / name).unlink()
    with pytest.raises(ModelNotFound, match=name):
        funasr.load(directory)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.yaml", "a: [", "not plain YAML"),
        ("config.yaml", "!!python/object/apply:os.mkdir [sprung]", "not plain YAML"),
        ("config.yaml", "- a", "settings by name"),
        ("configuration.json", "{", "not JSON"),
        ("configuration.json", "[]", "JSON object"),
        ("tokens.json", "{}", "JSON list of strings"),
        ("tokens.json", '["a"]', "1.* is 50|50x32"),
        ("am.mvn", "<Nnet>", "AddShift"),
    ],
)
def test_damaged_side_files_are_named(tmp_path, name, text, message):
    directory = write_funasr(tmp_path)
    (directory / name).write_text(text)
    with pytest.raises(ModelError, match=message):
        funasr.load(directory)
    assert not Path("sprung").exists()


def test_what_funasr_has_no_words_for_survives(tmp_path):
    bundle, model = funasr.load(write_funasr(tmp_path / "source"))
    model.config = replace(model.config, live=ChunkConfig(left=8, chunk=8, right=4), training_chunks=())
    funasr.save(replace(bundle, config=model.config, card={"licence": "Apache-2.0"}), model, tmp_path / "saved")
    again, _ = funasr.load(tmp_path / "saved")
    assert again.config == model.config
    assert again.card == {"licence": "Apache-2.0"}


def test_a_ctc_layer_with_units_of_its_own_stays_out(tmp_path):
    bundle, model = funasr.load(write_funasr(tmp_path / "source", "aishell_conformer"))
    config = replace(model.config, objective=replace(model.config.objective, ctc_units=7))
    model.config, model.ctc = config, torch.nn.Linear(32, 7)
    funasr.save(replace(bundle, config=config), model, tmp_path / "saved")
    again, loaded = funasr.load(tmp_path / "saved")
    assert again.config.objective.ctc_weight == 0.0
    assert loaded.ctc is None


@pytest.fixture
def large(tmp_path):
    """A FunASR directory of the published large shape with random weights; it takes 0.9 GB, removed afterwards."""
    model = strict.skeleton(LARGE)
    names = funasr_names(LARGE, model.state_dict())
    directory = tmp_path / "large"
    directory.mkdir()
    weights = {names[name]: torch.randn(tensor.shape) for name, tensor in model.state_dict().items()}
    torch.save(weights, directory / "model.pt")
    settings = funasr_writer.write(LARGE)
    settings["frontend_conf"]["cmvn_file"] = None
    (directory / "config.yaml").write_text(yaml.safe_dump(settings))
    (directory / "tokens.json").write_text(json.dumps([str(index) for index in range(8404)]))
    yield directory
    shutil.rmtree(tmp_path)


@pytest.mark.slow
def test_the_large_shape_there_and_back(large):
    native = checkpoint.convert(large, large.parent / "native")
    back = checkpoint.convert(native, large.parent / "back")
    expected, arrays = (torch_file.read(path / "model.pt") for path in (large, back))
    assert set(arrays) == set(expected)
    assert all(np.array_equal(arrays[name], expected[name]) for name in expected)
    bundle, model = checkpoint.open_any(native)
    assert replace(bundle.config, training_chunks=()) == LARGE
    whole = model.recognize(torch.randn(1, 20, 560), torch.tensor([20]))
    assert whole.hidden.shape == (1, 20, 512)


# -- what the settings name -------------------------------------------------------------------------------------------


def named_elsewhere(tmp_path: Path, *, section: str, key: str, value: object) -> Path:
    """A FunASR directory without configuration.json, as fine-tuning leaves it: config.yaml names a file itself."""
    settings = golden_settings("online")
    settings.setdefault(section, {})[key] = value
    directory = write_funasr(tmp_path / "model", settings=settings)
    (directory / "configuration.json").unlink()
    return directory


NAMED = {"am.mvn": ("frontend_conf", "cmvn_file"), "seg_dict": ("tokenizer_conf", "seg_dict_file")}


@pytest.mark.parametrize("name", [*NAMED, "tokens.json"])
@pytest.mark.parametrize("root", ["/home/someone/models", "C:\\models", "exp/run"])
def test_a_file_named_by_a_path_of_another_machine_is_found_beside_the_settings(tmp_path, name, root):
    section, key = {**NAMED, "tokens.json": ("tokenizer_conf", "token_list")}[name]
    separator = "\\" if "\\" in root else "/"
    directory = named_elsewhere(tmp_path, section=section, key=key, value=f"{root}{separator}{name}")
    expected = funasr.load(write_funasr(tmp_path / "plain"))[0]
    found = funasr.load(directory)[0]
    assert (found.tokens, found.words) == (expected.tokens, expected.words)
    assert found.cmvn.shift.tobytes() == expected.cmvn.shift.tobytes()


@pytest.mark.parametrize("name", NAMED)
def test_a_file_named_by_a_path_of_this_machine_is_found_there(tmp_path, name):
    elsewhere = tmp_path / "elsewhere" / "its.own.name"
    elsewhere.parent.mkdir()
    section, key = NAMED[name]
    directory = named_elsewhere(tmp_path, section=section, key=key, value=str(elsewhere))
    (directory / name).rename(elsewhere)
    expected = funasr.load(write_funasr(tmp_path / "plain"))[0]
    found = funasr.load(directory)[0]
    assert found.words == expected.words
    assert found.cmvn.shift.tobytes() == expected.cmvn.shift.tobytes()


@pytest.mark.parametrize("name", ["am.mvn", "seg_dict", "tokens.json", "model.pt", "config.yaml"])
@pytest.mark.parametrize("act", [funasr.load, funasr_directory.read, checkpoint.open_any])
def test_a_named_file_that_is_nowhere_is_an_error(tmp_path, name, act):
    directory = write_funasr(tmp_path)
    (directory / name).unlink()
    with pytest.raises(ModelNotFound, match=name):
        act(directory)


def test_a_named_file_is_not_replaced_by_another_of_a_usual_name(tmp_path):
    directory = named_elsewhere(tmp_path, section="frontend_conf", key="cmvn_file", value="stats.mvn")
    with pytest.raises(ModelNotFound, match=r"stats\.mvn"):
        funasr.load(directory)


def test_without_cmvn_only_where_the_settings_say_so(tmp_path):
    directory = named_elsewhere(tmp_path, section="model_conf", key="report_cer", value=False)
    (directory / "am.mvn").unlink()
    with pytest.raises(ModelNotFound, match=r"no am\.mvn.*`cmvn_file: null`"):
        funasr.load(directory)
    settings = yaml.safe_load((directory / "config.yaml").read_text())
    settings["frontend_conf"]["cmvn_file"] = None
    (directory / "config.yaml").write_text(yaml.safe_dump(settings))
    assert funasr.load(directory)[0].cmvn is None


def test_tokens_may_stand_in_the_settings(tmp_path):
    tokens = json.loads((GOLDEN / "tokens.json").read_text())
    directory = named_elsewhere(tmp_path, section="tokenizer_conf", key="token_list", value=tokens)
    (directory / "tokens.json").unlink()
    assert funasr.load(directory)[0].tokens == tuple(tokens)


def test_the_initial_weights_of_a_training_are_not_the_models(tmp_path):
    """Fine-tuning writes down which weights it began with; the model's own lie beside its settings."""
    start = tmp_path / "start.pt"
    torch.save({name: torch.zeros_like(tensor) for name, tensor in golden_tensors("online").items()}, start)
    expected = funasr.load(write_funasr(tmp_path / "plain"))[1].state_dict()
    found = funasr.load(write_funasr(tmp_path / "model", settings={"init_param": str(start)}))[1].state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_checkpoints_of_a_training_are_offered_where_there_is_no_model(tmp_path):
    directory = write_funasr(tmp_path)
    (directory / "configuration.json").unlink()
    (directory / "model.pt").rename(directory / "model.pt.avg10")
    with pytest.raises(ModelNotFound, match=r"rename the one you want of model\.pt\.avg10"):
        funasr.load(directory)


# -- every setting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (changed("online", "frontend_conf", fs=8000), "frontend_conf: fs is 8000.* speech at another rate"),
        (changed("online", "frontend_conf", low_freq=60), "unknown setting in frontend_conf: low_freq"),
        (changed("online", "frontend_conf", energy_floor=1.0), "unknown setting in frontend_conf: energy_floor"),
        (changed("online", "frontend_conf", upsacle_samples=False), "samples in another range"),
        (changed("online", "frontend_conf", window="kaiser"), "frontend.window must be hamming, .*'kaiser'"),
        (changed("online", "frontend_conf", lfr_n=0), "frontend.lfr_n must be at least 1, not 0"),
        (changed("online", "frontend_conf", n_mels=True), "n_mels must be like 80, not True"),
        (changed("online", "predictor_conf", tail_threshold=float("nan")), "tail_threshold must be like"),
        (changed("online", "predictor_conf", smooth_factor=-1.0), "smooth_factor must be at least 0"),
        (changed("online", "decoder_conf", sanm_shfit=11), "shift is 11, which is beyond the kernel of 11"),
        (
            changed("online", "decoder_conf", sanm_shfit=0),
            "decoder_conf.sanm_shfit is 0, but a ParaformerStreaming .* 5",
        ),
        (changed("online", "decoder_conf", num_blocks=4), "ParaformerStreaming runs live only with .* in every layer"),
        (changed("online", "encoder_conf", dropout_rate=1.5), "dropout must be at most 1.0, not 1.5"),
        (changed("online", "encoder_conf", num_blocks=10**6), "encoder.layers must be at most 1000"),
        (changed("online", "decoder_conf", linear_units=10**30), "decoder.ffn_dim must be at most"),
        (changed("online", "frontend_conf", frame_length=1e9), "frontend.frame_ms must be at most"),
        ({"decoding_ctc_weight": 0.5}, "decoding_ctc_weight is 0.5.* a search with CTC"),
        ({"lm_weight": 0.15}, "lm_weight is 0.15"),
        ({"vocab_size": 8404}, "vocab_size is 8404, but by the other settings and files it is 50"),
        ({"input_size": 80}, "input_size is 80, .* it is 560"),
    ],
)
def test_a_value_that_would_not_be_computed_is_refused(tmp_path, changes, message):
    with pytest.raises((ConfigError, UnsupportedModel), match=message) as caught:
        funasr.load(write_funasr(tmp_path, settings=changes))
    assert str(tmp_path / "config.yaml") in str(caught.value)


@pytest.mark.parametrize("name", ["online", "offline_B", "aishell_conformer"])
def test_a_misspelt_setting_is_asked_about(tmp_path, name):
    settings = golden_settings(name)
    for section in (None, *(key for key, value in settings.items() if isinstance(value, dict) and key != "ctc_conf")):
        for key in settings if section is None else settings[section]:
            if key in ("ctc_conf", "use_1st_decoder_loss"):
                continue  # without influence under any name
            harmed = golden_settings(name)
            place = harmed if section is None else harmed[section]
            place[f"{key}s"] = place.pop(key)
            with pytest.raises(ConfigError, match=f"unknown setting.*{key}s; did you mean {key}?"):
                funasr_config.read(harmed, 50)


def test_a_missing_setting_is_named_with_what_funasr_would_take(tmp_path):
    settings = golden_settings("online")
    del settings["predictor_conf"]["tail_threshold"]
    with pytest.raises(ConfigError, match=r"predictor_conf lacks tail_threshold; .* add tail_threshold: 0\.0"):
        funasr_config.read(settings, 50)


def test_every_setting_of_the_published_kinds_is_in_a_table():
    """What the tables do not know is refused or at most tolerated; of the published settings there is none such."""
    parts = {"": funasr_parts.WHOLE_MODEL, "model_conf": funasr_parts.OBJECTIVE, "frontend_conf": funasr_parts.FRONTEND}
    for name in CONFIGS:
        settings = golden_settings(name)
        classes = (("encoder", funasr_parts.ENCODERS), ("decoder", funasr_parts.DECODERS))
        for section, kinds in (*classes, ("predictor", funasr_parts.PREDICTORS)):
            parts[f"{section}_conf"] = kinds[settings[section]]
        for section, part in parts.items():
            known = {*part.fields, *part.fixed, *part.elsewhere, *part.ignored}
            assert set(settings.get(section, {}) if section else settings) <= known


def weights_for_engines(directory):
    bundle = funasr_directory.read(directory)
    return funasr_directory.load_weights(bundle, native.shapes(bundle.config))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("act", [funasr.load, weights_for_engines])
def test_weights_that_are_not_finite_are_named(tmp_path, value, act):
    weights = golden_tensors("online")
    weights["encoder.encoders.1.norm1.bias"][3] = value
    with pytest.raises(CheckpointError, match=r"model\.pt.* not finite in encoder\.encoders\.1\.norm1\.bias"):
        act(write_funasr(tmp_path, weights=weights))


def test_large_numbers_are_finite(tmp_path):
    weights = golden_tensors("online")
    weights["decoder.embed.0.weight"] = torch.full_like(weights["decoder.embed.0.weight"], 3e38)
    funasr.load(write_funasr(tmp_path, weights=weights))


def test_weights_for_other_engines_are_the_models_in_float32(tmp_path):
    halves = {name: tensor.half() for name, tensor in golden_tensors("online").items()}
    directory = write_funasr(tmp_path, weights=halves)
    weights, model = weights_for_engines(directory), funasr.load(directory)[1]
    assert set(weights) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert weights[name].dtype == np.float32
        np.testing.assert_array_equal(weights[name], tensor.numpy())


def test_a_full_disk_is_no_error_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        try:
            raise OSError(28, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 128 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*model.pt'"):
        funasr.save_tensors({"a": torch.zeros(3)}, tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())
