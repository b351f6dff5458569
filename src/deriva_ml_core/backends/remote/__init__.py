"""The remote backend: rows over ERMrest and objects in Hatrac, on a Deriva server."""
