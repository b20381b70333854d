"""`python -m kvsync` is the command `kvsync`.

Python imports the package before this: a Ctrl-C in that time it answers with its own traceback.
"""

import sys

from kvsync_command import main

if __name__ == "__main__":
    sys.exit(main())
