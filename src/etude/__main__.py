"""`python -m etude`, as launchers of several processes want it."""

import sys

from etude.apps.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
