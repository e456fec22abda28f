"""`python -m derain.cli` is `derainctl`."""

from derain.cli.app import main

main()
