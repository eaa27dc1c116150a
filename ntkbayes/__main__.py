"""``python -m ntkbayes``: the command line without its script."""

from ntkbayes.cli import main

main()
