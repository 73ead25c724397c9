"""Files: local disks and remote storage, atomic writes, locks, and JSON documents read through a schema."""
