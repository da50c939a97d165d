"""From a directory to something that answers: opening, hashing, planning and loading models."""
