"""What commands print: results.py writes it to the real stdout, each other module has the texts and
tables of some commands."""
