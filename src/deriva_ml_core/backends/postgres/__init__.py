"""PostgreSQL backend: the rows of a catalog in a database, and its objects in a store that the catalog names."""
