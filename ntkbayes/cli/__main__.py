"""``python -m ntkbayes.cli``: the command line without its script."""

from ntkbayes.cli import main

main()
