"""Backends that ship with this software. A plugin can combine the catalog of one with the store of another."""
