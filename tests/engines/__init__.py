"""Real engines that tests start on loopback and stop."""
