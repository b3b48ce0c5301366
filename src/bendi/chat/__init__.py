"""Conversations: who says what to a loaded model, what is kept of it, and what happens when it does not fit.

Knows sessions on disk (`sessions` over `database`, `schema`, `journal`, `recovery`, `durable`) or in memory
(`memory`), their documents (`export`), personas (`personas`, written back by `personas_edit`), parameters and which of
them wins (`parameters`, `setup`), the context policies (`context`, `compaction`), and the conversation that joins them
to an engine (`conversation`). Does not know how a model is loaded or found, and prints nothing.
"""
