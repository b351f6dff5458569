"""Run ``deriva-ml`` as ``python -m deriva_ml_cli``."""

from __future__ import annotations

from deriva_ml_cli.app import main

if __name__ == "__main__":
    main()
