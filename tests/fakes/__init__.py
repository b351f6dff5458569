"""A fake Deriva server on this machine, for tests."""
