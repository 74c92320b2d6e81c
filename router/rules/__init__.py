"""Demultiplexing rules: which chunks see a service that they did not ask for, and who may say so.

- `rule`   one rule: what it matches, what it does; a question that rules answer
- `judge`  what a set of rules says about a chunk, plainly: the meaning that all else must keep
- `answer` what the rules say about a flow, and what is left to ask of each chunk
- `patterns` which payload patterns may be installed, and how all are found at once
- `expression`, `expression_reader` expressions over bytes, the same for every engine
- `scan_cost` what a pattern may cost a scan
- `hyperscan_scanner`, `re2_scanner` the engines

How rules are written, carried and proven:

- `values`    kinds of values in documents: how they are read, what is allowed, their schema
- `records`   tables in documents and their fields
- `pattern_fields` the fields of a pattern
- `fields`    the fields of a rule, and a rule made of them
- `making`    rules made of checked values, quickly
- `schema`    the JSON Schema of documents
- `document`  a change of a set of rules: its head, and items as JSON Lines
- `written`   documents as people write them: TOML, JSON, JSON Lines
- `signed`    a document with its signature and grants
- `proof`     whether a signer may say what its rules say
- `trial`     tries a document without any router
- `refusals`  why a document or a rule is refused
- `errors`    errors about documents

How the data plane asks them:

- `table`          one version of all rules: `Table.ask` answers about a flow
- `ranking`        what the rules of several keys add up to
- `segment`        rules in memory, found by what they name: `load_segment`
- `segment_layout` how entries lie in it
- `segment_hash`   the keyed hash under which they lie
- `segment_policy` what a rule does beside what it names
- `segment_file`   its file
- `segment_entries` which entries a rule has
- `crowding`       keys that too many rules name
- `number_counts`  counts by the number of a rule
- `number_sweep`   forgets those of rules that are gone
- `segment_writer` writes segments, from rules or from older ones: `write_segment`, `merge_segments`

Why they decide so:

- `explain`         rules that come near a chunk, and what became of each
- `explain_report`  the same as an answer
- `explain_store`   the keeper's part of it
- `explain_schemas` questions and answers of the management API
- `explain_client`  asks a running router
- `rule_files`      rules in force if a router had taken these files
- `table_numbers`   which rules of a table stand under a chunk's names

How they are kept, by a process beside the router:

- `store`          the database: sets and serials, rules, versions
- `revocation_store` which grants are revoked, and the rules out of force for it
- `intake`         the items of one document on their way into it, and what became of each
- `rule_writer`    writes rules while others are read
- `installer`      one document: believed or not, its items, the files of the version
- `pattern_book`   the patterns of all rules and their numbers in the scanner
- `scanner_share`  how much of the scanner one signer may have
- `table_files`    the files of a version: how they grow, how they are loaded
- `evidence`       the signed documents behind the rules
- `policy`         what the config says about rules
- `revoker`        takes grants back, and rules out of force that need them
- `policy_change`  what becomes of rules when it says something else
- `reread`         rules of rows of the database
- `keeper`         all of that: changes in, versions out
- `rehearsal`      what a keeper without rules would say to a document
- `catalogue`      answers questions about what is installed
- `memory`         gives memory back after a large change
- `keeper_process` the keeper as a program
- `keeper_link`    the router's end of it

How the management API has to do with them:

- `api`      its paths
- `schemas`  its answers
- `client`   asks it from elsewhere
- `uploads`  documents on their way in
- `figures`, `metrics` what is counted

Source: design, section 6; MobiArch'13 paper, sections 3.3 and 3.5; docs/decisions/0012.
"""
