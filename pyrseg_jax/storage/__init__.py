"""Files: disks and buckets, atomic writes, locks, and JSON documents read through a schema."""
