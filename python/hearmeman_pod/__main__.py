"""`python -m hearmeman_pod`."""

import sys

from hearmeman_pod.command import main

if __name__ == "__main__":
    sys.exit(main())
