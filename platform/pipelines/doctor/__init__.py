"""`doctor`: what this machine and the cluster have and lack, each finding with its remedy."""
