"""Small things that know nothing of models, stores or files."""
