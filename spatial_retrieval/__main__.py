"""``python -m spatial_retrieval`` runs the command line."""

import sys

from spatial_retrieval.cli import main

if __name__ == "__main__":
    sys.exit(main())
