"""`python -m bendi` is the `bendi` command."""

from bendi.cli.main import main

raise SystemExit(main())
