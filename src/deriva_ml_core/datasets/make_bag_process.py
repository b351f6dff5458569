"""Makes a folder a bag, as a program of its own, because bdbag changes the current folder of its whole process."""

from __future__ import annotations

import sys


def main(folder: str, manifest: str, configuration: str) -> None:
    """Make a folder a BDBag in place.

    Args:
        folder: The folder; what lies in it goes into its ``data``.
        manifest: A file that lists the remote files, as bdbag's ``remote_file_manifest``; empty for none.
        configuration: A file with bdbag's configuration, so that none is looked for, or written, in the user's home.
    """
    from bdbag import bdbag_api

    bdbag_api.make_bag(folder, remote_file_manifest=manifest or None, config_file=configuration)


if __name__ == "__main__":
    main(*sys.argv[1:])
