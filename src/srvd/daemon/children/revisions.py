"""Which configuration each generation was made from, and what follows from it for zygote and workers.

Starts no process and opens no listener. A revision is given before any action names it, and kept until it is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from socket import socket

from srvd.config.health import probe_url
from srvd.config.settings import Config, PoolSettings
from srvd.core.model import Revision
from srvd.daemon.children.zygote import Fronts, ZygoteSpec
from srvd.daemon.listeners import Listeners
from srvd.ids import GenerationId

__all__ = ["Revisions"]


class Revisions:
    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._configs: dict[Revision, Config] = {}
        self._of: dict[GenerationId, Revision] = {}

    def settle(self, revision: Revision, config: Config) -> None:
        """Give the settings of a revision, whose listeners were prepared."""
        self._configs[revision] = config

    def assign(self, generation: GenerationId, revision: Revision) -> None:
        """The generation is made from this revision."""
        self._of[generation] = revision

    def drop(self, revision: Revision) -> None:
        """Forget a revision, and the generations that were made from it."""
        self._configs.pop(revision, None)
        self._of = {generation: used for generation, used in self._of.items() if used != revision}

    def save(self) -> dict[GenerationId, Revision]:
        """The revision of each generation, for the next program."""
        return dict(self._of)

    def restore(self, found: Mapping[GenerationId, Revision]) -> None:
        """Go on with what `save` returned. The settings of every revision were given before."""
        self._of = dict(found)

    def settings(self, generation: GenerationId) -> PoolSettings:
        """The settings that zygote and workers of the generation were started with."""
        return self._config(generation).pools[generation.pool]

    def spec(self, generation: GenerationId) -> ZygoteSpec:
        """What a zygote of the generation is started with; its pool has URLs in the place of paths."""
        config, pool = self._config(generation), self.settings(generation)
        addressed = pool._replace(
            health=self.probe_url(generation) if pool.health else "", warm=tuple(self.warm_urls(generation))
        )
        fronts = Fronts(config.listeners, config.tls)
        return ZygoteSpec(
            addressed, self._listeners.of(self._of[generation], pool.listeners), fronts, config.folder
        )  # fmt: skip

    def probe_url(self, generation: GenerationId) -> str:
        """The URL of the health path, as a worker calls it."""
        return probe_url(self._config(generation), generation.pool)

    def warm_urls(self, generation: GenerationId) -> list[str]:
        """The URLs of the paths that a worker calls to be warm."""
        config = self._config(generation)
        return [probe_url(config, generation.pool, path) for path in self.settings(generation).warm]

    def listeners(self, generation: GenerationId) -> Sequence[socket]:
        """The sockets that workers of the generation accept from; none if the generation is not known."""
        revision = self._of.get(generation)
        if revision is None:
            return []
        return [sock for _, sock in self._listeners.of(revision, self.settings(generation).listeners)]

    def left_over(self, generation: GenerationId) -> list[int]:
        """The listeners whose backlog a worker of the generation must not empty."""
        return self._listeners.left_over(self._of[generation], self.settings(generation).listeners)

    def _config(self, generation: GenerationId) -> Config:
        return self._configs[self._of[generation]]
