"""Certificates: written with every export, checked again where it is used, and failing where they should."""

from __future__ import annotations

import copy
import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache, reduce
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import soundfile
import tiny
import tiny_bundle
from hypothesis import given
from hypothesis import strategies as st

import paraformer
from paraformer.backends import native
from paraformer.bundle import Bundle, checksum
from paraformer.certificate.checks import compare, worst
from paraformer.certificate.golden import RECORDINGS, Golden, Outcome
from paraformer.certificate.record import EXACT, FILE, Certificate, Difference, Form
from paraformer.certificate.verify import verify
from paraformer.checkpoint import convert
from paraformer.checkpoint import native as native_files
from paraformer.cli import main
from paraformer.errors import ModelError, ModelNotFound, UnsupportedModel
from paraformer.export import certify
from paraformer.export.certify import export_certified
from paraformer.export.directories import write
from paraformer.language import LanguageModel

OWN, WHOLE, LIVE = Form(), Form(runtime="sherpa-onnx"), Form(runtime="sherpa-onnx", live=True)
INT8 = Form(runtime="funasr-onnx", precision="int8")
PACKED = Form(precision="int8")
HALF = Form(precision="fp16")
OWN_FORMS = [OWN, HALF, *([PACKED] if native.available("int8") else [])]

IDS = st.lists(st.integers(3, 9), max_size=8)


@cache
def exported(form: Form) -> Path:
    directory = Path(mkdtemp(prefix="paraformer-certified-"))
    export_certified(Bundle.open(tiny_bundle.directory()), tiny.model(), directory, form)
    return directory


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """An export for the base install that a test may spoil."""
    return shutil.copytree(exported(OWN), tmp_path / "own")


def outcome(ids: list[int], log_prob: float = -1.0) -> Outcome:
    return Outcome(np.array(ids, np.int64), np.full(len(ids), log_prob, np.float32))


@pytest.mark.parametrize("form", [*OWN_FORMS, LIVE, INT8, Form(runtime="funasr")], ids=str)
def test_an_export_does_here_what_its_certificate_says(form: Form) -> None:
    report = verify(exported(form))
    assert report.passed and report.certificate.form == form
    modes = {"paraformer": ("whole", "live"), "sherpa-onnx": ("live",)}.get(form.runtime, ("whole",))
    laws = ["parity", "batch", "padding"] + ["threads"] * (form.runtime != "funasr")
    expected = {f"{law}, {mode}" for law in laws for mode in modes}
    assert {check.name for check in report.checks} == expected | ({"packets, live"} if form in OWN_FORMS else set())


def test_the_language_model_goes_along(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_bundle.directory(), model)
    LanguageModel.count([[3, 4, 5]], len(tiny.TOKENS)).save(model / "lm.safetensors")
    export_certified(Bundle.open(model), tiny.model(), tmp_path / "out", OWN)
    assert "lm.safetensors" in Certificate.read(tmp_path / "out").sha256
    assert (tmp_path / "out" / "lm.safetensors").read_bytes() == (model / "lm.safetensors").read_bytes()


def test_half_the_size_is_the_same_model_everywhere() -> None:
    size, half = ((exported(form) / "model.safetensors").stat().st_size for form in (OWN, HALF))
    assert half < 0.6 * size
    signal = tiny.signal(30_000)
    engines = [paraformer.load(exported(HALF), backend=name) for name in ("onnx", "torch")]
    if native.available("float32"):
        engines.append(paraformer.load(exported(HALF), backend="native", precision="float32"))
    texts = {engine.transcribe(signal).text for engine in engines}
    assert len(texts) == 1


@pytest.mark.skipif(PACKED not in OWN_FORMS, reason="this processor has no int8")
def test_a_directory_of_packed_weights_is_small_and_for_int8_alone() -> None:
    directory = exported(PACKED)
    assert {path.name for path in directory.iterdir()} == {"config.json", "model.int8.safetensors", "golden.npz", FILE}
    assert paraformer.load(directory).engine == "native int8"
    with pytest.raises(ModelError, match="int8 weights only"):
        paraformer.load(directory, precision="bfloat16")


def test_the_certificate_names_every_file_and_what_made_it() -> None:
    certificate = Certificate.read(exported(OWN))
    names = {path.name for path in exported(OWN).iterdir()} - {FILE}
    assert set(certificate.sha256) == names
    assert all(checksum(exported(OWN) / name) == digest for name, digest in certificate.sha256.items())
    assert {"paraformer", "python", "numpy", "torch", "onnx", "onnxruntime"} <= set(certificate.versions)
    assert certificate.model == tiny.config()


def test_limits() -> None:
    certificate = Certificate(OWN, tiny.config(), {}, {}, {"parity, whole": Difference(3, 0.5)})
    assert certificate.limit("parity, whole") == Difference(0, EXACT)
    assert replace(certificate, form=INT8).limit("parity, whole") == Difference(4, 1.0 + EXACT)


@given(IDS, IDS)
def test_differences(left: list[int], right: list[int]) -> None:
    found = compare(outcome(left), outcome(right, -1.25))
    assert (found.tokens == 0) == (left == right)
    assert found.tokens <= len(left) + len(right)
    assert found.log_probs in (0.0, 0.25)
    assert compare(outcome(left), outcome(left)) == Difference(0, 0.0)
    both = worst([outcome(left), outcome(left)], [outcome(right), outcome(left, -1.5)])
    assert both.tokens == found.tokens and (both.log_probs == 0.5 or not left)


def test_goldens_are_read_as_they_were_saved(tmp_path: Path) -> None:
    golden = Golden.read(exported(OWN))
    golden.save(tmp_path)
    again = Golden.read(tmp_path)
    assert [len(samples) for samples in again.samples] == [40_850, 59_024] and len(RECORDINGS) == 2
    assert set(again.outcomes) == {"whole", "live"}
    for mode, outcomes in golden.outcomes.items():
        assert worst(outcomes, again.outcomes[mode]) == Difference(0, 0.0)
    assert sum(len(one.ids) for one in golden.outcomes["live"]) > 10
    np.testing.assert_array_equal(golden.feats(tiny.config().frontend)[1], again.feats(tiny.config().frontend)[1])


@pytest.mark.parametrize("name", ["config.json", "encoder.onnx", "golden.npz", "model.safetensors"])
def test_a_changed_file_is_named_and_nothing_of_it_is_run(name: str, own: Path) -> None:
    (own / name).write_bytes((own / name).read_bytes() + b"\0")
    report = verify(own)
    assert report.changed == (name,) and not report.passed and not report.checks


def test_a_missing_file_counts_as_changed(own: Path) -> None:
    (own / "decoder.onnx").unlink()
    assert verify(own).changed == ("decoder.onnx",)


def test_a_model_that_computes_something_else_fails_parity(own: Path) -> None:
    golden = Golden.read(own)
    off = tuple(replace(one, log_probs=one.log_probs + np.float32(0.01)) for one in golden.outcomes["whole"])
    replace(golden, outcomes={**golden.outcomes, "whole": off}).save(own)
    certificate = Certificate.read(own)
    digest = checksum(own / "golden.npz")
    replace(certificate, sha256={**certificate.sha256, "golden.npz": digest}).write(own)
    report = verify(own)
    assert [check.name for check in report.checks if not check.passed] == ["parity, whole"]


def test_an_export_that_is_not_what_torch_computes_gets_no_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {"parity, whole": Difference(2, 0.5)}
    monkeypatch.setattr("paraformer.export.certify.run_checks", lambda *_: wrong)
    with pytest.raises(ModelError, match="2 tokens differ"):
        export_certified(Bundle.open(tiny_bundle.directory()), tiny.model(), tmp_path, WHOLE)
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "form": {"runtime": "paraformer", "speed": 9}}']
)
def test_damaged_certificates(text: str, own: Path) -> None:
    (own / FILE).write_text(text)
    with pytest.raises(ModelError, match=FILE):
        verify(own)


def test_a_value_that_is_gone_or_of_another_kind_is_told(own: Path) -> None:
    """Whatever stands in its place: nothing is taken to be certified, and nothing else is raised."""
    good = json.loads((own / FILE).read_text())
    good["measured"] = {"data": "speech", "utterances": 3, "whole": dict.fromkeys(("torch", "export", "change"), 1.5)}
    good["measured"]["live"] = None
    places = [(name,) for name in good] + [("form", name) for name in good["form"]]
    places += [(name, key) for name in ("versions", "sha256", "differences", "measured") for key in good[name]]
    places += [("differences", "parity, whole", name) for name in ("tokens", "log_probs")]
    places += [("measured", "whole", name) for name in ("torch", "export", "change")]
    for *way, name in places:
        for wrong in ("gone", None, True, [], {"a": 1}, math.nan, -1e9):
            values = copy.deepcopy(good)
            holder = reduce(dict.__getitem__, way, values)
            del holder[name]
            if wrong != "gone":
                holder[name] = wrong
            (own / FILE).write_text(json.dumps(values))
            if wrong == "gone" and way and way[0] in ("versions", "sha256", "differences"):
                continue  # fewer of them are well formed: what is missing is seen when they are compared
            if wrong is None and name in ("measured", "whole", "live"):
                continue  # nothing measured
            with pytest.raises(ModelError, match=FILE):
                Certificate.read(own)


@pytest.mark.parametrize("name", ["model.safetensors", "golden.npz"])
def test_a_file_that_the_certificate_does_not_name_is_not_certified(name: str, own: Path) -> None:
    certificate = Certificate.read(own)
    replace(certificate, sha256={key: digest for key, digest in certificate.sha256.items() if key != name}).write(own)
    (own / "README.md").write_text("what hubs add")
    assert verify(own).changed == (name,)


def test_a_certificate_of_other_settings(own: Path) -> None:
    certificate = Certificate.read(own)
    replace(certificate, model=replace(certificate.model, live=None)).write(own)
    with pytest.raises(ModelError, match="other settings than it has"):
        verify(own)


def test_a_certificate_with_other_checks(own: Path) -> None:
    certificate = Certificate.read(own)
    replace(certificate, differences={**certificate.differences, "smell, whole": Difference(0, 0.0)}).write(own)
    with pytest.raises(ModelError, match="export the model again"):
        verify(own)


def test_a_directory_without_certificate(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="paraformer export"):
        verify(tmp_path)


def test_verifying_our_own_and_foreign_graphs_needs_no_torch() -> None:
    code = (
        "import sys; from paraformer.certificate.verify import verify\n"
        "assert all(verify(directory).passed for directory in sys.argv[1:])\n"
        "assert {'torch', 'onnx', 'yaml'}.isdisjoint(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, exported(OWN), exported(LIVE)], check=True)


def test_export_and_verify_as_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "talk.wav", tiny.signal(40_000), 16_000)
    (tmp_path / "speech.jsonl").write_text(json.dumps({"audio": "talk.wav", "text": "今天天气很好"}) + "\n")
    out = str(tmp_path / "out")
    data = ["--measure", str(tmp_path / "speech.jsonl")]
    model = str(tiny_bundle.directory())
    assert main(["export", model, out, "--format", "sherpa-onnx", "--live", "--precision", "int8", *data]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    measured = Certificate.read(Path(out)).measured
    assert measured is not None and measured.live is not None and measured.utterances == 1
    assert measured.live.change == measured.live.export - measured.live.torch
    assert main(["verify", out]) == 0
    table = capsys.readouterr().out
    assert table.startswith("sherpa-onnx, live, int8, run by onnx; made with paraformer ") and "parity, live" in table
    assert "errors on speech.jsonl (1 utterances), live" in table
    assert table.endswith(f"{out} recognises here as it did where it was exported\n")
    limits = {"parity, live": Difference(-1, 0.0)}
    monkeypatch.setattr(Certificate, "limit", lambda _, check: limits.get(check, Difference(99, 99.0)))
    assert main(["verify", out]) == 1
    assert "out recognises otherwise here, by 1 of " in capsys.readouterr().out
    (tmp_path / "out" / "tokens.txt").unlink()
    assert main(["verify", out]) == 1
    table = capsys.readouterr().out
    assert "changed, missing or not certified: tokens.txt  FAILED" in table and "get the model again" in table
    assert main(["verify", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert main(["export", model, out]) == 1
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["model", "out", "--live"],
        ["model", "out", "--format", "funasr", "--precision", "int8"],
        ["model", "--format", "funasr"],
        ["zh-small"],
    ],
    ids=" ".join,
)
def test_options_at_odds(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# -- whole or nothing -------------------------------------------------------------------------------------------------


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """An export in float16 that a test may spoil."""
    return Path(shutil.copytree(exported(HALF), tmp_path / "model"))


@pytest.fixture
def refusing(monkeypatch):
    """Exports that fail at the very end."""

    def refuse(certificate: Certificate) -> None:
        raise ModelError("refused")

    monkeypatch.setattr(certify, "_refuse", refuse)
    return monkeypatch


def test_an_export_that_fails_leaves_nothing_behind(tmp_path: Path, refusing) -> None:
    target = tmp_path / "new" / "out"
    with pytest.raises(ModelError, match="refused"):
        export_certified(Bundle.open(tiny_bundle.directory()), tiny.model(), target, OWN)
    assert list(target.parent.iterdir()) == []
    refusing.undo()
    export_certified(Bundle.open(tiny_bundle.directory()), tiny.model(), target, OWN)
    assert verify(target).passed


def test_an_export_into_a_model_itself_that_fails_leaves_it_as_it_was(half: Path, refusing) -> None:
    model = half  # made before exports are refused
    before = {path.name: (path.read_bytes(), path.stat().st_ino) for path in model.iterdir()}
    with pytest.raises(ModelError, match="refused"):
        export_certified(Bundle.open(model), native_files.load(model)[1], model, OWN)
    assert {path.name: (path.read_bytes(), path.stat().st_ino) for path in model.iterdir()} == before
    refusing.undo()
    export_certified(Bundle.open(model), native_files.load(model)[1], model, OWN)
    weights = model / "model.safetensors"
    assert (weights.read_bytes(), weights.stat().st_ino) == before["model.safetensors"]
    Bundle.open(model).check(*before)
    assert verify(model).passed


def test_int8_is_refused_before_the_work_where_nothing_can_check_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(native, "available", lambda precision: False)
    with pytest.raises(UnsupportedModel, match="nothing could check an int8 directory"):
        export_certified(Bundle.open(tiny_bundle.directory()), tiny.model(), tmp_path / "out", PACKED)
    assert list(tmp_path.iterdir()) == []


def test_a_language_model_survives_the_way_to_funasr_and_back(tmp_path: Path, caplog) -> None:
    model = Path(shutil.copytree(tiny_bundle.directory(), tmp_path / "model"))
    LanguageModel.count([[3, 4, 5]], len(tiny.TOKENS)).save(model / "lm.safetensors")
    there = convert(model, tmp_path / "funasr")
    back = convert(there, tmp_path / "back")
    export_certified(Bundle.open(model), tiny.model(), tmp_path / "export", Form(runtime="funasr"))
    for directory in (there, back, tmp_path / "export"):
        assert (directory / "lm.safetensors").read_bytes() == (model / "lm.safetensors").read_bytes()
    write(Bundle.open(model), tiny.model(), tmp_path / "sherpa", LIVE)
    assert "sherpa-onnx has no place for the language model" in caplog.text
