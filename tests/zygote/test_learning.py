"""Claims about what a zygote learns where that cannot be tried first; the rest is system/test_warming.py's."""

from __future__ import annotations

import subprocess
import sys

SHORT_OF_DESCRIPTORS = """
import os, resource
from srvd.zygote import learning
highest = os.open(os.devnull, os.O_RDONLY)
resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, highest + 1))
print(learning.learn(["colorsys", "sndhdr"], preload={preload!r}, seconds=10))
"""


def test_what_cannot_be_tried_for_want_of_descriptors_is_left_to_each_worker() -> None:
    for preload in ("auto", "on"):
        code = SHORT_OF_DESCRIPTORS.format(preload=preload)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "whole=False" in done.stdout
        assert "importing colorsys, sndhdr could not be tried (Too many open files): each worker" in done.stdout
