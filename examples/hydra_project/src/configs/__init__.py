"""The configs of this project, by groups."""
