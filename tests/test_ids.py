"""Claims about names: spelt once, and each leads to the other."""

from __future__ import annotations

from srvd.ids import GenerationId, WorkerId


def test_a_worker_and_its_generation_name_each_other() -> None:
    generation, worker = GenerationId("web", 3), WorkerId("web", 3, 17)
    assert generation.worker(17) == worker
    assert worker.generation_id == generation
    assert (str(generation), str(worker)) == ("web@3", "web/3#17")
