# For mypy alone: two files named conftest.py need two module names. Nothing imports this.
