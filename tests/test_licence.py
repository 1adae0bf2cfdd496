"""One truth about licences: in the metadata of the package, in the files that go along, and on the model's card."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from paraformer.bundle import Bundle
from paraformer.loader import locate

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PARTS = {
    "Apache-2.0": ("LICENSE", "Apache License"),
    "MIT": ("src/paraformer/segment/SILERO_LICENSE", "Silero"),
    "CC-BY-SA-4.0": ("src/paraformer/models/LICENSE", "SPDX: CC-BY-SA-4.0"),
}
"""Of the code, of the weights of voice activity detection, of the embedded model: the file, and words of it."""


def test_the_metadata_name_every_licence_and_no_other():
    assert PROJECT["license"].split(" AND ") == list(PARTS)
    assert PROJECT["license-files"] == [name for name, _ in PARTS.values()]


@pytest.mark.parametrize("licence", PARTS)
def test_every_licence_goes_along(licence):
    name, words = PARTS[licence]
    assert words in (ROOT / name).read_text(encoding="utf-8")


def test_the_card_of_the_embedded_model_says_the_same():
    card = Bundle.open(locate(None)).card
    assert "Apache-2.0 for the code" in card["licence"]
    assert "weights under CC-BY-SA 4.0" in card["licence"]
    assert card["sources"], "CC-BY-SA asks for the names of the sources"


@pytest.mark.parametrize(("page", "word"), [("README.md", "Licences:"), ("README.zh.md", "许可证：")])
def test_the_readme_names_them_too(page, word):
    [line] = [line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if word in line]
    assert all(licence in line for licence in PARTS)
