"""The one command, `packetcloud NOUN VERB`: arguments in, tables or JSON out, nothing else.

- `main`       the root group, its table of nouns, and how errors become exit codes
- `output`     tables, JSON, notes and progress bars; the exit codes
- `__main__`   `python -m packetcloud.cli`, the same command without the installed script

One module for each noun: `bench`, `chunk`, `completion`, `config`, `doctor`, `identity`, `router`,
`service`.

What a command does lives in the room it belongs to. Source: docs/reference/cli.md.
"""
