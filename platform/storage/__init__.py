"""Files on local disks, s3:// and gs://; where a command may write."""
