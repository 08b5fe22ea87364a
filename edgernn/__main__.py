"""`python -m edgernn` is the command `edgernn`."""

from edgernn.cli import main

if __name__ == "__main__":
    main()
