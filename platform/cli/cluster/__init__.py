"""Commands about the machine and the cluster that the others run on."""
