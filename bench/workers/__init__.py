"""What runs inside the processes that are measured: one file an engine, in that engine's venv."""
