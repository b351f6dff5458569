"""Notebooks as executions: ``deriva-ml-run-notebook`` runs one, and what it made is kept as it was executed."""
