"""Files and their rows: staged, uploaded, found again, brought back and checked."""
