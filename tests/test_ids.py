"""Claims about names: spelt once, and each leads to the other."""

from __future__ import annotations

import pytest

from srvd.ids import GenerationId, WorkerId


def test_a_worker_and_its_generation_name_each_other() -> None:
    generation, worker = GenerationId("web", 3), WorkerId("web", 3, 17)
    assert generation.worker(17) == worker
    assert worker.generation_id == generation
    assert (str(generation), str(worker)) == ("web@3", "web/3#17")


@pytest.mark.parametrize("pool", ["web", "a/b@c#d"])
def test_a_name_is_read_as_it_is_spelt(pool: str) -> None:
    generation = GenerationId(pool, 3)
    assert GenerationId.parse(str(generation)) == generation
    assert WorkerId.parse(str(generation.worker(17))) == generation.worker(17)


@pytest.mark.parametrize("name", ["", "web", "web@", "web/3", "web/3#", "web#17", "web@3#x"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        WorkerId.parse(name)
    with pytest.raises(ValueError, match="invalid literal"):
        GenerationId.parse(name.replace("@3", ""))
