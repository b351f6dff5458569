"""Turn a folder into a bag, in a separate process because bdbag changes the current directory."""

from __future__ import annotations

import sys


def main(folder: str, manifest: str, configuration: str) -> None:
    """Turn a folder into a BDBag in place.

    Args:
        folder: The folder; its contents move into its ``data``.
        manifest: A file that lists the remote files, as bdbag's ``remote_file_manifest``; empty for none.
        configuration: A file with bdbag's configuration, so that bdbag neither reads nor writes one in the user's home.
    """
    from bdbag import bdbag_api

    bdbag_api.make_bag(folder, remote_file_manifest=manifest or None, config_file=configuration)


if __name__ == "__main__":
    main(*sys.argv[1:])
