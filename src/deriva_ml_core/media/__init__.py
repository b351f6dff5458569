"""Images, figures and tables that a run logs: encoded and written in the background, and listed in ``media.jsonl``."""
