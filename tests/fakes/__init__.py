"""Stand-ins for what tests cannot have: a Deriva server on loopback."""
