"""One module for each step of the schema, named NNNN_what.py; written by hand, checked by a test.

- `0001_promises`  who there is, what is reserved, who owns what
- `0002_money`     what was used, what that costs, what was billed
- `0003_rules`     what cloudlets are to have of sets of rules
- `0004_signatures` the cloudlets' signatures of usage records
"""
