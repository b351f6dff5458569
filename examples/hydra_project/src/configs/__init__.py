"""Configurations of this project, by group."""
