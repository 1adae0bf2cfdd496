"""`python -m paraformer.cli`: the command where it is not installed as one, as under torchrun."""

from __future__ import annotations

import sys

from paraformer.cli import main

sys.exit(main())
