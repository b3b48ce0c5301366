"""Conversations that are kept, shared by the web page, programs and the terminal. Everybody sees their own only: those
of the key they use; without keys, those of whoever sits at this machine, which are those of `bendi session list`.

    GET    /api/bendi/sessions?limit=N            [session]
    GET    /api/bendi/sessions?search=WORDS       [session + {"role", "excerpt"}]
    POST   /api/bendi/sessions                    {"model", "persona", "system", "parameters"} -> session, status 201.
                                                  It is stored with its first message
    GET    /api/bendi/sessions/{id}?all=true      session, "messages" are [message]; `all`: also superseded ones
    GET    /api/bendi/sessions/{id}/export        the session as Markdown, to be saved as a file
    PATCH  /api/bendi/sessions/{id}               any of {"title", "model", "persona", "system", "parameters"}
                                                  -> session. null takes system or a parameter back to the persona's
    DELETE /api/bendi/sessions/{id}               {"deleted": [id]}, for good
    POST   /api/bendi/sessions/{id}/branch        {"before_position": N} -> a new session with the messages before it
    POST   /api/bendi/sessions/{id}/messages      asks, answers as events, see below

    session: {"id", "title", "model", "persona", "created", "updated", "settings": {"system", "set": {name: value}},
              "messages": how many}
    message: {"role", "content", "reasoning"?, "tool_calls"?, "position", "kind": "turn" | "summary",
              "state": "complete" | "partial", "superseded", "created", "details": {"finish", "usage", "timings"}}

A question is `{"text"}`, or `{"retry": true}` for another answer to the last one. With `"from_position": N` every
message from that one on is superseded first (kept, no longer sent): so a message is edited; to keep both ways open,
branch before.
`"policy"`: `error`, `compact` or `slide`, over what persona and session say. The question is on disk before anything is
computed, the answer as it comes; closing the connection stops the model, and what was written is kept as `partial`.

    loading   {}                                              the model is not there yet
    question  message                                         it is stored
    progress  {"done_tok", "total_tok", "cached_tok"}         of the prompt
    compact   {"done", "total"}                               pieces of older turns that were summarised
    context   {"policy", "left_out", "summary", "needed_tok", "available_tok"}   not everything is sent
    delta     {"text"} or {"reasoning"}
    done      {"message": message or null, "finish", "usage": {"prompt_tok", "completion_tok", "cached_tok"},
               "timings": {"load_s", "ttft_s", "pp_tok_s", "tg_tok_s"},
               "context": {"used_tok", "available_tok", "left_out"}}
    error     the body of an error

A question that does not fit gets status 400 with `context_needed` before anything is stored or superseded. A second
question while an answer is being written gets 409.
"""
