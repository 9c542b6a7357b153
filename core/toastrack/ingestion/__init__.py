"""Files to documents to a store."""
