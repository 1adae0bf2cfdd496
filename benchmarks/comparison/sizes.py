"""Size on disk of what installing a package brings."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path


def sizes_mb(*roots: str) -> dict[str, float]:
    """Megabytes of each package and of what it requires, extras left out, as they are installed here."""
    sizes, waiting = dict[str, float](), list(roots)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in sizes:
            continue
        try:
            requirements = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        sizes[name] = _size_mb(name)
        waiting += [re.split(r"[^\w.-]", line)[0] for line in requirements if "extra ==" not in line]
    return dict(sorted(sizes.items()))


def _size_mb(name: str) -> float:
    if name == "paraformer":  # wherever it is, also where it runs from its sources
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        paths = [path for path in Path(spec.origin).parent.rglob("*") if "__pycache__" not in path.parts]
    else:
        paths = [Path(str(path.locate())) for path in distribution(name).files or []]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6
