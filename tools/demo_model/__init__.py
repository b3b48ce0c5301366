"""The recipe of bendi's built-in demo model: topics -> corpus -> tokenizer -> training -> GGUF -> score.

Knows how the file `src/bendi/assets/demo.gguf` is made and how it is scored. Nothing in `src/` imports it.
Only `model`, `train` and `export` need torch; the topics, the corpus and the scoring need the standard library alone.
"""
