"""The command `paraformer`: exit codes and the way to each command, whose module is imported only when it is asked for.

Exit codes: 0 all is well; 1 something failed, said in one line each on standard error, and the rest is done;
2 wrong usage; 130 interrupted; 141 the reader of the output went away.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from paraformer.cli import translation
from paraformer.cli.complain import complain, library_warnings
from paraformer.cli.options import parser
from paraformer.errors import ParaformerError

FAILED, INTERRUPTED, OUTPUT_CLOSED = 1, 130, 141

_HOMES = {"convert": "models", "info": "models", "pull": "models"}
"""The modules of the commands that are not called after theirs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (default: the process's own) and return its exit code."""
    if sys.stdout is None:
        complain("standard output is closed, so that nobody could read what comes; send it to a file or to /dev/null")
        return OUTPUT_CLOSED
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    options = _parser()
    _complete(options)
    try:
        with library_warnings() as warned:
            code = run(options.parse_args(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit is quiet too
        return OUTPUT_CLOSED
    except (ParaformerError, OSError) as error:
        complain(error)
        return FAILED
    return code or (FAILED if warned else 0)


def _parser() -> argparse.ArgumentParser:
    """The command line, in the language of the user."""
    if not translation.chinese():
        return parser()
    translation.bind()
    options = parser()
    translation.localise(options)
    return options


def _complete(options: argparse.ArgumentParser) -> None:
    """Answer a shell that asks how a line may go on (extra [completion]), and exit."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(options)


def run(options: argparse.Namespace) -> int:
    """Import and run the command that was asked for; return its exit code."""
    if threads := getattr(options, "threads", 0):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", str(threads))  # numpy's, which must know before it is imported
    home = import_module(f"paraformer.cli.{_HOMES.get(options.command, options.command)}")
    code: int = getattr(home, options.command)(options)
    return code
