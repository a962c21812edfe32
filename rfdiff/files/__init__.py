"""Everything that touches a disk: files written whole or not at all, result and data set files, finished parts of interrupted work."""
