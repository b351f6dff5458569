"""The subcommands of ``deriva-ml``: one module each, named for its command."""
