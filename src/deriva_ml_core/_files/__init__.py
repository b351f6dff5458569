"""Files on disk: atomic writes, partial downloads, errors of the operating system."""
