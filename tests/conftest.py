from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("quick", max_examples=30, deadline=None)
settings.load_profile("quick")
