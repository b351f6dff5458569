"""Export a run to formats of other software."""
