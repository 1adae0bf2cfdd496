"""Breaks one expression or statement of a module at a time, and reports the breaks that none of its tests notices.

Mutants are made of the syntax tree, in a copy of the project. Of the known tools, mutmut imports the package before the
run-time checks of array shapes can be put around it, so it does not start here; cosmic-ray makes eight mutants of one
`a < b` and one of each `|` in an annotation, but none that drops a statement, and draws no sample.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent
TESTS = {
    "session": ("session", "session_laws", "session_goldens", "second_pass", "language", "silence"),
    "stream_state": ("stream_state", "session", "second_pass"),
    "speech_model": ("session", "language", "alternatives", "hotwords", "silence"),
    "silence": ("silence",),
    "frontend": ("frontend",),
    "model/cif": ("model_cif", "backends"),
    "backends/cif": ("backends", "session"),
    "timestamps": ("timestamps",),
    "text": ("text",),
    "language": ("language",),
    "candidates": ("candidates", "lexicon"),
    "lexicon": ("lexicon", "candidates"),
    "products": ("products",),
    "segment/cut": ("segment",),
    "segment/silero": ("segment",),
    "audio/decoding": ("audio",),
    "audio/resampling": ("audio_resampling",),
    "audio/signal": ("audio",),
    "audio/source": ("audio",),
    "recognizer": ("recognizer", "speakers", "hotwords", "second_pass", "confidence"),
    "recordings": ("recognizer", "speakers", "writing"),
    "train/gate": ("train_finetune_gate",),
}
"""Modules, and the test files that are to notice what is broken in them."""

Mutation = tuple[ast.AST, Callable[[], None]]
"""Where, and what breaks it."""

_OTHERS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
}  # fmt: skip
_NAMES = {
    "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any",
    "floor": "ceil", "ceil": "floor",
}  # fmt: skip


def mutations(tree: ast.AST) -> Iterator[Mutation]:
    """All of a tree, in one order. Annotations, decorators, assertions, messages and texts stay as they are."""
    if isinstance(tree, ast.Assert | ast.Raise | ast.JoinedStr):
        return
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(node, ast.AST):
                continue
            if field == "body" and not isinstance(tree, ast.Module | ast.ClassDef) and _acts(node):
                yield node, _setting(value, index, ast.Pass())
            yield from _of_node(node)
            yield from mutations(node)


def _acts(node: ast.AST) -> bool:
    """Whether a statement does something that can be left undone: no docstring, no branch, no way out."""
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Expr | ast.Assign | ast.AugAssign | ast.Raise | ast.Continue) and not text


def _of_node(node: Any) -> Iterator[Mutation]:
    fields = vars(node)
    match node:
        case ast.Compare():
            for index, op in enumerate(node.ops):
                yield node, _setting(node.ops, index, _OTHERS[type(op)]())
        case ast.BoolOp() | ast.BinOp() | ast.AugAssign() if type(node.op) in _OTHERS:
            yield node, _setting(fields, "op", _OTHERS[type(node.op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node, _setting(fields, "operand", ast.UnaryOp(node.op, node.operand))
        case ast.Slice():
            for name in ("lower", "upper"):
                if isinstance(bound := fields[name], ast.expr) and not isinstance(bound, ast.Constant):
                    yield node, _setting(fields, name, ast.BinOp(bound, ast.Add(), ast.Constant(1)))
        case _:
            yield from ((node, _setting(fields, name, value)) for name, value in _values(node))


def _values(node: Any) -> list[tuple[str, Any]]:
    """Fields of a node, and what else may stand in them."""
    match node:
        case ast.Constant(value=bool()):
            return [("value", not node.value)]
        case ast.Constant(value=int() | float()):
            return [("value", node.value + 1), ("value", node.value - 1)]
        case ast.If() | ast.While() | ast.IfExp():
            return [("test", ast.Constant(True)), ("test", ast.Constant(False))]
        case ast.Name() if node.id in _NAMES:
            return [("id", _NAMES[node.id])]
        case ast.Attribute() if node.attr in _NAMES:
            return [("attr", _NAMES[node.attr])]
        case ast.Return(value=ast.expr()):
            return [("value", ast.Constant(None))]
    return []


def _setting(where: Any, key: Any, value: object) -> Callable[[], None]:
    return lambda: where.__setitem__(key, value)


def mutant(source: str, number: int) -> tuple[str, str]:
    """The source with one mutation, and what that is in words."""
    tree = ast.parse(source)
    node, apply = list(mutations(tree))[number]
    line, before = node.lineno, ast.unparse(node).splitlines()[0]  # type: ignore[attr-defined]
    apply()
    after = ast.unparse(node).splitlines()[0]
    change = f"{before}  ->  {after}" if after != before else f"without  {before}"
    context = source.splitlines()[line - 1].strip()
    return ast.unparse(ast.fix_missing_locations(tree)), f"{line}: {change}" + (
        f"   in  {context}" * (context != before)
    )


def passes(copy: Path, module: str, limit: float) -> bool:
    """Whether the tests of a module pass within so many seconds."""
    names = [f"tests/test_{name}.py" for name in TESTS[module]]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--hypothesis-profile=mutants", "-p", "no:cacheprovider"]
    files = [name for name in names if (copy / name).exists()]
    environment = os.environ | {"PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [*command, *files], cwd=copy, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:  # fmt: skip
        try:
            return run.wait(limit) == 0
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            return False


def survivors(copy: Path, module: str, sample: int, seed: int) -> Iterator[str]:
    """In words, what is broken and not noticed, of a sample that is the same for each seed."""
    path = copy / "src" / "paraformer" / f"{module}.py"
    source, began = path.read_text(encoding="utf-8"), time.monotonic()
    if not passes(copy, module, 600):
        sys.exit(f"the tests of {module} fail as they are")
    limit = 20 + 4 * (time.monotonic() - began)
    count = len(list(mutations(ast.parse(source))))
    drawn = sorted(random.Random(f"{seed} {module}").sample(range(count), min(sample, count)))  # noqa: S311
    print(f"{module}: {len(drawn)} of {count} mutants", flush=True)
    for number in drawn:
        broken, words = mutant(source, number)
        path.write_text(broken, encoding="utf-8")
        if passes(copy, module, limit):
            yield words
    path.write_text(source, encoding="utf-8")


def main() -> None:
    """Report the survivors of each module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", default=list(TESTS), help=", ".join(TESTS))
    parser.add_argument("--sample", type=int, default=60, help="mutants of each module (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="which are drawn (default: 1)")
    options = parser.parse_args()
    with TemporaryDirectory() as directory:
        copy = Path(directory) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", ".hypothesis", "__pycache__"))
        for module in options.modules:
            found = 0
            for words in survivors(copy, module, options.sample, options.seed):
                found += 1
                print(f"  {module}:{words}", flush=True)
            print(f"{module}: {found} survive", flush=True)


if __name__ == "__main__":
    main()
