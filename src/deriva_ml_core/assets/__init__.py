"""Assets: staging, upload, lookup, download and verification of files with rows."""
