"""Contains the transformers runner, and the self-check, quality and sizes of all runners."""
