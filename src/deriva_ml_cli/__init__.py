"""The command line ``deriva-ml``: options and output; the answers come from `deriva_ml_core`.

The package is separate because importing `deriva_ml_core` takes longer than all of ``deriva-ml --help``.
"""

from __future__ import annotations
