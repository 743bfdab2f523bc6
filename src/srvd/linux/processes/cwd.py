"""Finds the name by which the working directory was entered, so that the name follows a link that is switched later.

Changes no directory: the caller does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["named_folder"]


def named_folder(environ: Mapping[str, str]) -> str:
    """Returns `$PWD` if that names the working directory (getcwd(3), get_current_dir_name), else the real path; "" if
    the directory has been removed.
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
