"""The terminal: one file per verb.

Knows arguments, output and exit codes. Does not know how anything is done: verbs call the packages below. `main` loads
only the module of the verb that was typed, `output` is the only place that prints.
"""
