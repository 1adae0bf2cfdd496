"""What `paraformer train` says before it starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from paraformer.cli.train import check_recipe
from paraformer.errors import ConfigError

RECIPES = """
from recipes.zh_small import further
from functools import partial
def config(): ...
def _private(): ...
if True:
    def conditional(): ...
partial_config = partial(config)
"""


@pytest.fixture(autouse=True)
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_recipes.py").write_text(RECIPES, encoding="utf-8")
    (tmp_path / "broken_recipes.py").write_text("raise RuntimeError", encoding="utf-8")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["config", "further", "conditional", "partial_config"])
def test_recipes_that_are_there(name: str) -> None:
    check_recipe(f"my_recipes:{name}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_recipes:confg", r"my_recipes\.py has no function 'confg'; it has config$"),
        ("my_recipes:zzz", r"it has config, conditional$"),
        ("broken_recipes:config", r"has no function 'config'; it has none"),
        ("my_recipe:config", r"no module 'my_recipe'"),
        ("nowhere.my_recipes:config", r"no module 'nowhere\.my_recipes'"),
        ("my_recipes", r"write MODULE:FUNCTION"),
        ("my_recipes.py:config", r"no module 'my_recipes.py'; name it as Python does, my_recipes:config"),
        (":config", r"write MODULE:FUNCTION"),
    ],
)
def test_recipes_that_are_not_there_are_told_without_importing_anything(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_recipe(name)
    assert "my_recipes" not in sys.modules
