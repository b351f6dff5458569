"""Catalog over SQLAlchemy."""
