"""`python -m trio_wsb` is the command `trio-wsb`."""

from trio_wsb.cli.main import main

if __name__ == "__main__":
    main(prog_name="trio-wsb")
