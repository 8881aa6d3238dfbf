"""`python -m nfspec` is the command line."""

from nfspec.cli import main

if __name__ == "__main__":
    main()
