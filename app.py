"""The demo's entry, also of a Hugging Face Space: the same as ``spatial-retrieval demo``."""

import sys

from spatial_retrieval.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
