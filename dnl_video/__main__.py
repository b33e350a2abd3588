"""`python -m dnl_video` is `dnl-video`."""

import sys

from dnl_video.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
