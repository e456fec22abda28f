"""`derainctl leaks`: clean images that are in two datasets, and the report on them."""
