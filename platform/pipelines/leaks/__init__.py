"""`derainctl leaks`: clean images that two datasets share, and a report on them."""
