"""Studies of speed and energy: which combinations, in which order, how each is measured, and what is kept.

Knows the study file (`study_file.py`), the cells of a study and their order (`cells.py`), what is asked
(`prompts.py`), how one repeat is measured (`asking.py`, `repeats.py`), whether an engine answers as it should
(`gate.py`), and the results file (`journal.py`); `studies.py` runs all of it, and goes on after any break.

Does not know how results are shown (`report/`), what a plan is (the predictions come from whoever starts a study), and
how engines work (`engines/`).
"""
