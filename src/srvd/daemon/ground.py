"""What a start stands on before it starts anybody: the control socket's path is ours, and the bond of the family.

If the bond is held by others a daemon has died, and left somebody: `succession.py` sees to them.
"""

from __future__ import annotations

import os

from srvd.config.settings import DaemonSettings
from srvd.daemon import deposit
from srvd.daemon.bond import Bond
from srvd.daemon.control_peers import Roles
from srvd.daemon.control_socket import Claim
from srvd.daemon.deposit import Deposit
from srvd.linux.systemd import Unit
from srvd.record import Record
from srvd.wire.places import family_path, rundir, socket_path

__all__ = ["Ground", "control_path", "prepare"]


class Ground(Record):
    claim: Claim
    roles: Roles
    bond: Bond
    left: Deposit | None = None  # with the service manager, by a daemon that died


def control_path(settings: DaemonSettings) -> str:
    """Where the control socket of this instance is."""
    return settings.socket or socket_path(settings.name, rundir(os.geteuid(), os.environ))


def prepare(settings: DaemonSettings, unit: Unit) -> Ground:
    """Raises `SystemRefused`: another daemon runs, or the folder is none of ours; `ConfigInvalid`: a role is given to
    nobody. Nothing is left behind then.
    """
    path = control_path(settings)
    roles = Roles.resolve(settings.roles, os.geteuid())
    claim = Claim.open(path, shared=roles.shared)
    try:
        left = deposit.find(unit)
        if left is None:
            return Ground(claim, roles, Bond.open(family_path(path), is_deposited=unit.store > 0))
        bond = Bond(family_path(path), left.lock, left.deposit.family, is_held=False, is_deposited=True)
        return Ground(claim, roles, bond, left.deposit)
    except BaseException:
        claim.close()
        raise
