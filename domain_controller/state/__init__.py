"""What the domain controller keeps, in SQLite or PostgreSQL; the same promises in both.

- `errors`       every error this room raises; who is wrong decides the class
- `tables`       the tables of promises: who there is, what is reserved, who owns what
- `money_tables` the tables of money: what was used, what that costs, what was billed
- `migrations`   the steps of the schema
- `schema`       brings a database to the newest step, and refuses a newer one
- `database`     a database by its URL, checked when opened; connections
- `failures`     what an error of the database means
- `transaction`  what a request's work may use while it is its turn
- `writer`       the one thread that writes, and answers after the commit
- `rows`         rows that both databases insert alike
- `documents`    the core's values as text

What works are made of
- `answers`      idempotency keys
- `nonces`       each signature once
- `journal`      events, numbered and chained
- `ownership`    who acts on what, by epochs and leases
- `registry`     principals and keys, cloudlets, VI types, services
- `catalogue`    documents of rules, price lists
- `reports`      what cloudlets said last, in memory, written now and then
- `holds`        what is taken of a cloudlet, and its calendar
- `reservations` a value for each, with its holds, directives and events
- `outbox`       directives to cloudlets
- `rule_outbox`  sets of rules that cloudlets are to have, and what they say of them
- `booking`      one step of a reservation: the core decides, and it is kept
- `operations`   what takes its time
- `usage`        records: stored, counted and posted once, in any order
- `intake`       usage that a cloudlet reports: only for places that it holds
- `bills`        made beside the writer, closed in one transaction

For operators
- `audit`        whether what is kept is still what was written
- `backup`       backup while it runs, restore into an empty place

Source: docs/decisions/0015-domain-controller.md.
"""
