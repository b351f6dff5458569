"""The command line ``deriva-ml``: what was run, read, compared, checked and finished from a terminal.

It is a package of its own, since importing anything of `deriva_ml_core` costs more than all of ``deriva-ml --help``.
"""

from __future__ import annotations
