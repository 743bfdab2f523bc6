"""The configurations that are in use, by revision, and the one in force.

Reads none (`config_reader.py`) and opens no listener.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from srvd.config.settings import Config
from srvd.core.model import Revision

__all__ = ["Configs"]


class Configs:
    """`settled` is told of each configuration before an action names its revision."""

    def __init__(self, settled: Callable[[Revision, Config], None]) -> None:
        self._settled = settled
        self.configs: dict[Revision, Config] = {}
        self.current = Revision(0)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.configs[self.current]

    def add(self, revision: Revision, config: Config) -> None:
        """Keep a configuration whose listeners are prepared."""
        self.configs[revision] = config
        self._settled(revision, config)

    def restore(self, configs: Mapping[Revision, Config], current: Revision) -> None:
        """Go on with the configurations of a former program or daemon; their listeners are open already."""
        for revision, config in configs.items():
            self.add(revision, config)
        self.current = current

    def drop(self, revision: Revision) -> None:
        """Forget a configuration that nothing uses; that of a start that failed is shown as long as the daemon runs."""
        if revision != self.current:
            self.configs.pop(revision, None)
