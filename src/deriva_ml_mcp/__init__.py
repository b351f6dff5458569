"""Read-only tools over a catalog for agents, by the Model Context Protocol: ``deriva-ml mcp``."""
