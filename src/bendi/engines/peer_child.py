"""Becomes another program that ends when bendi does: `python -m bendi.engines.peer_child PARENT PROGRAM ARGUMENT...`.

Started by `peer_process` only.
"""

from __future__ import annotations

import os
import sys

from bendi.engines import sandbox, scheduling


def main() -> int:
    sandbox.die_with_parent(int(sys.argv[1]))
    scheduling.run_as_usual()
    command = sys.argv[2:]
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
    return 127


if __name__ == "__main__":
    raise SystemExit(main())
