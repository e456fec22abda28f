"""Files on local disks, s3:// and gs://: reading, atomic writing, locks, checks of output paths."""
