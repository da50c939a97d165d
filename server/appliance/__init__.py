"""Llama Appliance: an LLM inference server in one process, whose version is kept here."""

__version__ = "0.1.0"
