"""What a model's files say."""
