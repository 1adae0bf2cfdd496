"""Recognition over the network: protocols as plain state machines, one scheduler, and thin doors.

`protocol` says what protocols and engine tell each other; `funasr`, `realtime`, `wyoming` and `openai` are the
protocols, without sockets; `scheduler` owns the recogniser and shares it among streams and files, which `files` and
`decoding` bring to it; `doors` and `web` connect sockets; `guard` keeps out what must not come
in; `server` runs it all.
"""
