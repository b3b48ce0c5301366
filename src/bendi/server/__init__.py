"""The door for programs: one HTTP server that speaks OpenAI, Ollama and Anthropic, and the web page.

Knows routes and who may use them, how each dialect writes requests and answers, which models are loaded and who waits
for them. Does not know how text is generated (`engines`), where models come from (`store`) or how plans are made
(`advisor`): it asks.

`endpoint` is one row of the table of routes, `app` makes a program of all rows, `services` is what handlers may use,
`generation` turns what a dialect understood into an answer. A dialect is one or more files that hold `ENDPOINTS`.
"""
