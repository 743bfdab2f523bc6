"""Names of generations and workers, for the daemon, the zygotes, the workers and `srvctl`.

Counts nothing: the core assigns the numbers.
"""

from __future__ import annotations

from srvd.record import Record

__all__ = ["GenerationId", "WorkerId"]


class GenerationId(Record):
    """One load of a pool's code: "web@3". The number counts the loads of the pool from 1."""

    pool: str
    number: int

    def __str__(self) -> str:
        return f"{self.pool}@{self.number}"

    @classmethod
    def parse(cls, name: str) -> GenerationId:
        """The generation with the name. Raises `ValueError`."""
        pool, _, number = name.rpartition("@")
        return cls(pool, int(number))

    def worker(self, serial: int) -> WorkerId:
        """The worker of this generation with the serial."""
        return WorkerId(self.pool, self.number, serial)


class WorkerId(Record):
    """One worker: "web/3#17" is the 17th of the daemon, forked for generation 3 of the pool. A `serial` is never used
    twice in the life of a daemon.
    """

    pool: str
    generation: int
    serial: int

    def __str__(self) -> str:
        return f"{self.pool}/{self.generation}#{self.serial}"

    @classmethod
    def parse(cls, name: str) -> WorkerId:
        """The worker with the name. Raises `ValueError`."""
        generation, _, serial = name.rpartition("#")
        pool, _, number = generation.rpartition("/")
        return cls(pool, int(number), int(serial))

    @property
    def generation_id(self) -> GenerationId:
        """The generation that the worker was forked for."""
        return GenerationId(self.pool, self.generation)
