"""``python -m ntkbayes``: the command line without its script."""

from ntkbayes.cli import main

if __name__ == "__main__":
    main()
