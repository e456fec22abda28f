"""`derainctl train`: one run under Ray Train, resumed after a crash or kill."""
