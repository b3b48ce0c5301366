"""Conversations: who says what to a loaded model, what is kept of it, and what happens when it does not fit.

Knows sessions on disk (`sessions` over `database`, `journal`, `recovery`), personas (`personas`, written back by
`personas_edit`), parameters (`parameters`), the context policies (`context`, `compaction`) and the conversation that
joins them to an engine (`conversation`). Does not know how a model is loaded or found, and prints nothing.
"""
