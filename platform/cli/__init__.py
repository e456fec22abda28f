"""derainctl: one thin command a verb; app.py has the options and the errors' exit codes."""
