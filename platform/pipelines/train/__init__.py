"""`derainctl train`: one run under Ray Train, which can resume after a crash or kill."""
