"""A model of embeddings in 8-bit integers: made with texts like those it will read, and measured."""
