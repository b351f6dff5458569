"""``deriva-ml-run-notebook``: run a notebook, and record it as an execution with the executed notebook as output."""
