"""derainctl: app.py has the options and exit codes, one file per group of commands has the rest."""
