"""`python -m gemmgen` is the command `gemmgen`."""

from gemmgen.cli import main

if __name__ == "__main__":
    main()
