"""The random walk of the core holds its claims (`support/simulation/claims.py`), and finds the bugs that were put in
for it (`support/simulation/mutants.py`).

`SRVD_WALK_SEEDS` says how many walks there are, 120 by default: some 100 000 events, most of them in the long run
(`-m long`). The walks of a longer run begin with those of a shorter one, so a seed that fails can be run by hand:
`python -m tests.support.simulation.walk SEED SEED`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import srvd
from tests.support.shares import shares
from tests.support.simulation.mutants import MUTANTS, Mutant
from tests.support.simulation.processes import Broken
from tests.support.simulation.walk import one_walk
from tests.support.srvd_versions import BEING_WRITTEN

SEEDS = int(os.environ.get("SRVD_WALK_SEEDS", "120"))
SHARES = 30
"""Of the walks: the first share is walked always, one more unless slow tests are left out, the rest in a long run."""
ENOUGH = 300
"""Walks within which every mutant must be found. The first is one that has found it."""

TESTS = Path(__file__).parent.parent
SOURCE = Path(srvd.__file__).parent


@pytest.mark.parametrize("share", shares(SHARES, slow=1))
def test_nothing_that_is_claimed_of_the_core_is_ever_untrue(share: int, tmp_path: Path) -> None:
    events = 0
    for seed in range(share, SEEDS, SHARES):
        try:
            events += one_walk(seed).events
        except Broken as broken:
            (tmp_path / f"walk-{seed}.txt").write_text(broken.transcript)
            raise
    assert events > 300 * len(range(share, SEEDS, SHARES)), "the walks hardly walk"


def test_a_walk_is_the_same_each_time() -> None:
    assert one_walk(3, steps=20).transcript() == one_walk(3, steps=20).transcript()


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.bug)
def test_the_walk_finds_a_bug(mutant: Mutant, tmp_path: Path) -> None:
    _mutate(mutant, tmp_path)
    found = subprocess.run(
        [sys.executable, "-m", "tests.support.simulation.walk", str(mutant.first), str(mutant.first + ENOUGH)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1, f"{ENOUGH} walks did not find that {mutant.bug}: {found.stderr[-2000:]}"
    assert "seed " in found.stderr.splitlines()[-1], found.stderr[-2000:]


def _mutate(mutant: Mutant, folder: Path) -> None:
    """A copy of the core with the bug in it, and of the walk, with their bytecode: most of it holds for the copy."""
    for part in ("__init__.py", "errors.py", "ids.py", "quoting.py", "record.py"):
        (folder / "srvd").mkdir(exist_ok=True)
        shutil.copy(SOURCE / part, folder / "srvd")
    shutil.copytree(SOURCE / "core", folder / "srvd" / "core", ignore=BEING_WRITTEN)
    for part in ("tests", "tests/support"):
        (folder / part).mkdir()
        (folder / part / "__init__.py").touch()
    simulation = Path("support") / "simulation"
    shutil.copytree(TESTS / simulation, folder / "tests" / simulation, ignore=BEING_WRITTEN)
    target = folder / "srvd" / "core" / mutant.file
    text = target.read_text()
    assert text.count(mutant.old) == 1, f"{mutant.file} has changed: write the mutant anew that {mutant.bug}"
    mutated = text.replace(mutant.old, mutant.new)
    compile(mutated, mutant.file, "exec")
    target.write_text(mutated)
