"""bendi's own API, beside those of others: the machine, plans, models, personas, downloads. JSON in and out.

What the terminal prints with `--json`, under the same keys. Texts are in the language of the server.

    GET    /api/bendi/machine           infer  {"machine": as `bendi doctor --json`, "advice": {"here", "cpu",
                                               "usable_cores", "usable_bytes", "gpus", "build", "measured",
                                               "measured_at"}, "notes": [text]}
    POST   /api/bendi/plan              infer  {"model", "use", "quantizations", "prompt_tok", "answer_tok",
                                               "context_tok", "min_context_tok", "kv", "parallel", "threads",
                                               "no_spill"}, all but `model` optional -> as `bendi plan --json`.
                                               A model that is not here and not in the catalogue: admin (a connection
                                               is opened to read its header)
    GET    /api/bendi/fit               infer  ?use=&language=&kind=&thinking=&max_bytes=&min_tg_tok_s=&licence=&sort=
                                               &all=&min_context_tok= -> as `bendi fit --json`
    GET    /api/bendi/models            infer  [{"name", "size_bytes", "quantization", "origin", "owned", "complete",
                                               "loaded", and for admins "path", "parts"}] as `bendi list --json`
    GET    /api/bendi/models/catalogue  infer  [{"name", "sources": [name]}] as `bendi list --catalogue --json`
    DELETE /api/bendi/models/{name}     admin  {"name", "freed_bytes"} as `bendi rm --json`
    POST   /api/bendi/pull              admin  {"model"} -> events, see below
    GET    /api/bendi/personas          infer  [{"name", "description", "model", "system", "parameters", "builtin"}]
    PUT    /api/bendi/personas/{name}   admin  {"description", "model", "system", "parameters": {name: value}} -> it

Sessions are in `native_sessions`. Errors are `{"error": {"message", "type", "param", "code", ...}}` everywhere.

Events of a download, each `event: NAME` and `data: JSON`: `progress` {"phase": "download" | "check", "done_bytes",
"total_bytes", "rate_bytes_s", "eta_s", "file"}; `note` {"text"}; at the end `done`, as `bendi pull --json` prints it,
or `error` with the body of an error. Closing the connection stops it unless somebody else watches it too; what
has arrived is kept. `: ` lines are comments that keep the connection alive.
"""
