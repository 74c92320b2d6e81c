"""The one command, `packetcloud NOUN VERB`: arguments in, tables or JSON out, nothing else.

- `main`       the root group, its table of nouns, and how errors become exit codes
- `output`     tables, JSON, notes and progress bars; the exit codes
- `out_files`  files that commands write
- `params`     types of values on the command line, and options as a group
- `bars`       progress bars of files on their way
- `bench`      `packetcloud bench hop|path|service|chunks|loss|fairness|attack|rules|vi|domain`
- `bench_domain` `packetcloud bench domain`
- `bench_rules` what `bench rules` prints
- `bench_vi`   `packetcloud bench vi`
- `bench_run`  what those have in common: options, the run, its report
- `bill`       `packetcloud bill list|show|close|save|verify`
- `captures`   `packetcloud chunk capture|replay`
- `chunk`      `packetcloud chunk decode`
- `cloudlet`   `packetcloud cloudlet run|check|sample|status|down`
- `completion` `packetcloud completion`: completion scripts for bash, zsh and fish
- `config`     `packetcloud config sample|check`
- `demo`       `packetcloud demo`
- `doctor`     `packetcloud doctor`
- `domain`     `packetcloud domain run|check|sample|status|backup|restore`
- `domain_client` what the commands that ask a domain controller share
- `domain_cloudlet` `packetcloud cloudlet admit|list|show|open|close|key`
- `domain_keys` `packetcloud tenant key`, `packetcloud cloudlet key`
- `domain_rule` `packetcloud domain rule`
- `domain_service` `packetcloud service register|registered|unregister`
- `explain`    `packetcloud rule explain`
- `host`       `packetcloud host send|receive|ping`
- `identity`   `packetcloud identity create|show`
- `image`      `packetcloud image build|list|remove|import`
- `node`       `packetcloud node list|evacuate`
- `quote`      `packetcloud quote`
- `reservation` `packetcloud reservation create|list|show|extend|resize|cancel|wait`
- `router`     `packetcloud router run|check|status`
- `rule`       `packetcloud rule sign|check|grant`
- `rule_router` `packetcloud rule install|list|show|withdraw`
- `rule_revoke` `packetcloud rule revoke`
- `rule_rehearsal` `packetcloud rule check --config`
- `service_benchmark` `packetcloud service benchmark`
- `service`    `packetcloud service run|test|list|new`, `packetcloud service key ...`
- `tenant`     `packetcloud tenant add|list|show|suspend|resume`, `packetcloud tenant key ...`
- `testbed`    `packetcloud testbed link`
- `simulate`   `packetcloud testbed simulate`
- `usage`      `packetcloud usage`
- `vi`         `packetcloud vi list|show|launch|resize|migrate|drain|stop|restart|logs`
- `vi_type`    `packetcloud vi-type list|set`
- `__main__`   `python -m packetcloud.cli`, the same command without the installed script

What a command does lives in the room it belongs to. Source: docs/reference/cli.md.
"""
