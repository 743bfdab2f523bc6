"""The working directory by the name that it was entered by: a link that is switched later is followed by that name.

Changes nothing: entering a folder is its user's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["named_folder"]


def named_folder(environ: Mapping[str, str]) -> str:
    """The working directory: `$PWD` if that names it (getcwd(3), get_current_dir_name), else its real path.

    "" if it has been removed.
    """
    name = environ.get("PWD", "")
    try:
        here = os.getcwd()
        if name == os.path.normpath(name) and os.path.isabs(name) and os.path.samefile(name, "."):
            return name
    except FileNotFoundError:
        return ""
    except OSError:  # $PWD leads nowhere
        return here
    return here
