"""Alembic's revisions of the schema. What is released is never changed.

- `env`       runs them on the connection that is given
- `versions`  one module for each step
"""
