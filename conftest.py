"""Settings that must hold before any test is read."""

import os

from hypothesis import settings

# Two threads on two busy cores wait for each other at every step of a tiny network, which took four times as
# long. The libraries read this when they are imported; commands that tests start inherit it.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None)
settings.load_profile("repeatable")
