"""Folder backend: an object store in a folder."""
