"""Writes a checkpoint as GGUF with llama.cpp's own converter: SOURCE MODEL --outfile FILE …"""

import runpy
import sys
from pathlib import Path

source = Path(sys.argv.pop(1))
sys.path[:0] = [str(source), str(source / "gguf-py")]

from conversion.base import TextModel  # noqa: E402

# The converter knows tokenizers by a list of hashes; ours splits text as GPT-2's does.
TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
sys.argv[0] = str(source / "convert_hf_to_gguf.py")
runpy.run_path(sys.argv[0], run_name="__main__")
