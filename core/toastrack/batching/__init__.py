"""Texts of many callers to batches, and their vectors back."""
