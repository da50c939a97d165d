"""A good model directory opens with the facts it states; a bad one is refused in its own words."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import ModelRefused
from appliance.models.directory import embedded_model_path, open_model
from appliance.models.directory.safetensors_header import (
    MAX_HEADER_BYTES,
    parse_header,
    read_header,
)
from appliance.models.hashing import FileHasher
from tests.model_factory import (
    ARCHITECTURES,
    byte_tokenizer,
    change_json,
    model_config,
    random_weights,
    read_safetensors,
    write_json,
    write_lock,
    write_model,
    write_safetensors,
    write_shards,
    write_weights,
)

Spoil = Callable[[Path], object]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "models" / "tiny")


# Good directories.


@pytest.mark.parametrize("model_type", ARCHITECTURES)
@pytest.mark.parametrize(
    ("stored", "dtype"), [("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16")]
)
def test_every_native_family_and_dtype_opens(
    tmp_path: Path, model_type: str, stored: str, dtype: str
) -> None:
    found = open_model(write_model(tmp_path / "m", model_type=model_type, dtype=stored))
    assert found.native is not None
    assert (found.model_type, found.dtype) == (model_type, dtype)
    assert found.weight_bytes == found.num_parameters * (4 if stored == "F32" else 2)


def test_the_facts_of_a_model_are_read_from_its_files(model: Path) -> None:
    found = open_model(model)
    assert (found.name, found.architecture) == ("tiny", "LlamaForCausalLM")
    assert (found.num_tokens, found.vocab_size, found.max_context_tokens) == (259, 264, 256)
    assert found.bos_token_id == 256
    assert found.eos_token_ids == {257}
    assert found.special_tokens == {
        "bos_token": "<|begin|>",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
    }
    assert found.generation_defaults.temperature == 0.7
    assert found.generation_defaults.top_k is None
    assert not found.is_locked
    location = found.tensors["model.norm.weight"]
    content = location.path.read_bytes()[location.start : location.end]
    assert content == random_weights(found.config)["model.norm.weight"].tobytes()


def test_a_name_given_wins_over_the_name_of_the_directory(model: Path) -> None:
    assert open_model(model, name="mine").name == "mine"


def test_the_embedded_model_lies_in_the_package() -> None:
    assert embedded_model_path().name == "embedded"
    assert embedded_model_path().parent.name == "appliance"


def test_shards_are_found_through_their_index(model: Path) -> None:
    whole = open_model(model)
    write_shards(model, num_shards=3)
    found = open_model(model)
    assert len(found.weight_files) == 3
    assert found.tensors.keys() == whole.tensors.keys()


def test_links_to_files_are_followed_as_caches_and_stores_use_them(
    model: Path, tmp_path: Path
) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for file in list(model.iterdir()):
        shutil.move(file, blobs / file.name)
        file.symlink_to(blobs / file.name)
    assert open_model(model).num_parameters > 0


def test_pickle_files_beside_safetensors_are_never_opened(model: Path) -> None:
    os.mkfifo(model / "pytorch_model.bin")  # opening it would block for ever
    assert open_model(model).weight_files == (model / "model.safetensors",)


def test_inverse_frequencies_of_old_files_are_left_out(model: Path) -> None:
    add_tensor(model, "model.layers.0.self_attn.rotary_emb.inv_freq", "F64", [4], bytes(32))
    assert "model.layers.0.self_attn.rotary_emb.inv_freq" not in open_model(model).tensors


def test_the_output_matrix_of_a_tied_model_is_left_out(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m", tie_word_embeddings=True)
    add_tensor(path, "lm_head.weight", "F32", [264, 32], bytes(264 * 32 * 4))
    assert "lm_head.weight" not in open_model(path).tensors


def test_dtypes_may_be_mixed_and_the_one_with_most_bytes_counts(model: Path) -> None:
    add_tensor(model, "model.norm.weight", "F16", [32], bytes(64))
    assert open_model(model).dtype == "float32"


def test_a_model_type_we_do_not_know_opens_for_the_plain_runner(model: Path) -> None:
    change_json(model / "config.json", model_type="gpt_neox", architectures=["GPTNeoXForCausalLM"])
    found = open_model(model)
    assert found.native is None
    assert found.vocab_size == 264
    assert found.max_context_tokens == 256


def test_a_template_file_wins_over_the_tokenizer_config(model: Path) -> None:
    (model / "chat_template.jinja").write_text("from the file")
    assert open_model(model).chat_template == "from the file"


@pytest.mark.parametrize(
    ("written", "template"),
    [
        (None, None),
        ("plain", "plain"),
        ([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], "d"),
        ([{"name": "tool_use", "template": "t"}], None),
    ],
)
def test_the_template_is_the_string_or_the_default_of_the_list(
    model: Path, written: object, template: str | None
) -> None:
    change_json(model / "tokenizer_config.json", chat_template=written)
    assert open_model(model).chat_template == template


def test_special_tokens_fall_back_to_their_own_map(model: Path) -> None:
    (model / "tokenizer_config.json").unlink()
    change_json(model / "special_tokens_map.json", bos_token={"content": "<|begin|>"})
    assert open_model(model).special_tokens == {"bos_token": "<|begin|>"}


def test_a_null_special_token_is_an_answer_and_asks_no_further(model: Path) -> None:
    change_json(model / "tokenizer_config.json", bos_token=None)
    change_json(model / "special_tokens_map.json", bos_token="<|begin|>")
    found = open_model(model)
    assert "bos_token" not in found.special_tokens
    assert not found.add_bos_token


def test_ends_are_joined_from_all_three_files(model: Path) -> None:
    change_json(model / "config.json", eos_token_id=[250, 251])
    change_json(model / "generation_config.json", eos_token_id=252)
    assert open_model(model).eos_token_ids == {250, 251, 252, 257}


@pytest.mark.parametrize("is_nested", [False, True])
def test_without_a_setting_the_post_processor_tells_whether_a_bos_is_added(
    model: Path, is_nested: bool
) -> None:
    change_json(model / "tokenizer_config.json", add_bos_token=None)
    template: dict[str, object] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|begin|>"}}, {"Sequence": {"id": "A"}}],
    }
    processor = {"type": "Sequence", "processors": [template]} if is_nested else template
    assert not open_model(model).add_bos_token
    change_json(model / "tokenizer.json", post_processor=processor)
    assert open_model(model).add_bos_token


# Bad directories.


def add_tensor(path: Path, name: str, dtype: str, shape: list[int], data: bytes) -> None:
    """Put a tensor at the end of model.safetensors, instead of the one of its name if there is."""
    header, old = read_safetensors(path / "model.safetensors")
    new_header: dict[str, object] = {}
    new_data = b""
    for other, entry in header.items():
        offsets = entry["data_offsets"]
        assert isinstance(offsets, list)
        if other == name:
            continue
        part = old[offsets[0] : offsets[1]]
        place = [len(new_data), len(new_data) + len(part)]
        new_header[other] = {**entry, "data_offsets": place}
        new_data += part
    place = [len(new_data), len(new_data) + len(data)]
    new_header[name] = {"dtype": dtype, "shape": shape, "data_offsets": place}
    write_safetensors(path / "model.safetensors", new_header, new_data + data)


def config(**changes: object) -> Spoil:
    return lambda path: change_json(path / "config.json", **changes)


def tokenizer_config(**changes: object) -> Spoil:
    return lambda path: change_json(path / "tokenizer_config.json", **changes)


def generation_config(**changes: object) -> Spoil:
    return lambda path: change_json(path / "generation_config.json", **changes)


def tokenizer(**changes: object) -> Spoil:
    return lambda path: change_json(path / "tokenizer.json", **changes)


def text(name: str, content: str) -> Spoil:
    def spoil(path: Path) -> None:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content.encode("utf-8", "surrogateescape"))

    return spoil


def remove(*names: str) -> Spoil:
    def spoil(path: Path) -> None:
        for name in names:
            (path / name).unlink()

    return spoil


def steps(*spoils: Spoil) -> Spoil:
    return lambda path: [spoil(path) for spoil in spoils]


def tensor(name: str, dtype: str, shape: list[int], num_bytes: int) -> Spoil:
    return lambda path: add_tensor(path, name, dtype, shape, bytes(num_bytes))


def weights(edit: Callable[[dict[str, object]], object]) -> Spoil:
    """Edit what random_weights makes before it is written."""

    def spoil(path: Path) -> None:
        arrays = random_weights(json.loads((path / "config.json").read_text()))
        edit(arrays)  # type: ignore[arg-type]
        write_weights(path / "model.safetensors", arrays)

    return spoil


def raw_weights(header: str, data: bytes = b"", length: int | None = None) -> Spoil:
    def spoil(path: Path) -> None:
        content = header.encode("utf-8", "surrogateescape")
        prefix = (len(content) if length is None else length).to_bytes(8, "little")
        (path / "model.safetensors").write_bytes(prefix + content + data)

    return spoil


def one_tensor(**changes: object) -> Spoil:
    """A file with one tensor of two F32 numbers, described as `changes` say."""
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}
    return raw_weights(json.dumps({"w": entry}), bytes(8))


def two_tensors(first: list[int], second: list[int], num_bytes: int) -> Spoil:
    """Two F32 tensors at these offsets in a file with `num_bytes` of data."""
    header = {
        name: {"dtype": "F32", "shape": [(o[1] - o[0]) // 4], "data_offsets": o}
        for name, o in (("a", first), ("b", second))
    }
    return raw_weights(json.dumps(header), bytes(num_bytes))


def index(**changes: object) -> Spoil:
    return lambda path: change_json(path / "model.safetensors.index.json", **changes)


def map_to(shard: object) -> Spoil:
    return steps(write_shards, index(weight_map={"model.norm.weight": shard}))


def move_in_index(path: Path) -> None:
    file = path / "model.safetensors.index.json"
    weight_map = json.loads(file.read_text())["weight_map"]
    weight_map["model.norm.weight"] = next(
        shard for shard in weight_map.values() if shard != weight_map["model.norm.weight"]
    )
    write_json(file, {"weight_map": weight_map})


def drop_from_index(path: Path) -> None:
    file = path / "model.safetensors.index.json"
    weight_map = json.loads(file.read_text())["weight_map"]
    del weight_map["model.norm.weight"]
    write_json(file, {"weight_map": weight_map})


def duplicate_in_shards(path: Path) -> None:
    shards = sorted(path.glob("model-*.safetensors"))
    shutil.copy(shards[0], shards[1])


def dangling_link(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to("../blobs/gone")


def truncate_weights(path: Path) -> None:
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(content[:-100])


def extend_weights(path: Path) -> None:
    with (path / "model.safetensors").open("ab") as file:
        file.write(b"more")


def pipe(name: str) -> Spoil:
    def spoil(path: Path) -> None:
        (path / name).unlink()
        os.mkfifo(path / name)

    return spoil


def empty(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


def replace_by_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("no directory")


def pickles_only(name: str) -> Spoil:
    return steps(remove("model.safetensors"), text(name, "pickle"))


BIG_INT = "9" * 5000
LAYER = "model.layers.0.self_attn.q_proj.weight"
SHARD_1 = "model-00001-of-00002.safetensors"

BAD_DIRECTORIES: dict[str, tuple[Spoil, str]] = {
    # the directory
    "missing": (shutil.rmtree, r"The model directory .*tiny does not exist"),
    "a file": (replace_by_file, r"tiny is a file; give the directory"),
    "empty": (empty, r"tiny is empty\. Put config\.json"),
    "adapter": (text("adapter_config.json", "{}"), r"holds an adapter.*merge_and_unload"),
    # code
    "pickle .bin": (pickles_only("pytorch_model.bin"), r"pickle files \(pytorch_model\.bin\).*run"),
    "pickle .pt": (pickles_only("model.pt"), r"pickle files \(model\.pt\)"),
    "pickle .pth": (pickles_only("consolidated.00.pth"), r"pickle files \(consolidated"),
    "pickle .pkl": (pickles_only("weights.PKL"), r"pickle files \(weights\.PKL\)"),
    "pickle .ckpt": (pickles_only("model.ckpt"), r"pickle files \(model\.ckpt\)"),
    "python": (text("modeling_tiny.py", ""), r"program code \(modeling_tiny\.py\)"),
    "python below": (text("a/b/generate.PY", ""), r"program code \(a/b/generate\.PY\)"),
    "library": (text("kernels.so", ""), r"program code \(kernels\.so\)"),
    "auto_map": (config(auto_map={"AutoModel": "x.Y"}), r"config\.json has an auto_map"),
    "auto_map below": (config(text_config={"auto_map": {}}), r"config\.json has an auto_map"),
    "auto_map of tokenizer": (tokenizer_config(auto_map={}), r"tokenizer_config\.json has an auto"),
    "auto_map of generation": (
        generation_config(auto_map={}),
        r"generation_config\.json has an au",
    ),
    # config.json
    "no config": (remove("config.json"), r"config\.json is missing from"),
    "config not JSON": (
        text("config.json", "{'a': 1}"),
        r"config\.json is not JSON: .* line 1 col",
    ),
    "config not UTF-8": (text("config.json", '{"a": "\udcff"}'), r"config\.json is not.*UTF-8"),
    "config a list": (
        text("config.json", "[]"),
        r"config\.json must hold a JSON object, not a list",
    ),
    "config too large": (
        text("config.json", " " * 4_000_001),
        r"config\.json is too large.*4,000,",
    ),
    "config too deep": (
        text("config.json", '{"a":' + "[" * 90 + "]" * 90 + "}"),
        r"deeper than 64",
    ),
    "config far too deep": (text("config.json", "[" * 99_999), r"config\.json holds .*nested too"),
    "config with huge number": (text("config.json", f'{{"a": {BIG_INT}}}'), r"a number too long"),
    "config key twice": (text("config.json", '{"a": 1, "a": 2}'), r"holds the key 'a' twice"),
    "config half character": (text("config.json", '{"a": "\\ud800"}'), r"half of a surrogate pair"),
    "config a pipe": (pipe("config.json"), r"config\.json is not a regular file"),
    "no architectures": (config(architectures=None), r"config\.json has no architectures"),
    "no model_type": (config(model_type=None), r"config\.json has no model_type"),
    "architectures of numbers": (config(architectures=[1]), r"architectures .* list of names"),
    "not causal": (config(architectures=["BertForMaskedLM"]), r"BertForMaskedLM is not a causal"),
    "base model": (config(architectures=["LlamaModel"]), r"LlamaModel is not a causal"),
    "encoder-decoder": (config(is_encoder_decoder=True), r"is not a causal language model"),
    "quantized": (config(quantization_config={"bits": 4}), r"quantized .*Use the original"),
    "too many layers": (config(num_hidden_layers=10**9), r"num_hidden_layers .* limit of 1000"),
    "negative size": (config(hidden_size=-1), r"hidden_size is -1"),
    "absurd float": (config(rms_norm_eps=10**400), r"config\.json"),
    # the safetensors file
    "no weights": (
        remove("model.safetensors"),
        r"There are no weights: neither model\.safetensors",
    ),
    "gguf": (pickles_only("model-q4.gguf"), r"format that is not served here \(model-q4\.gguf\)"),
    "other safetensors": (pickles_only("x.safetensors"), r"x\.safetensors is neither .* Rename"),
    "broken link": (dangling_link, r"model\.safetensors is a link to a file that does not exist"),
    "weights a pipe": (pipe("model.safetensors"), r"model\.safetensors is not a regular file"),
    "weights empty": (text("model.safetensors", ""), r"is 0 bytes long, too short"),
    "header beyond file": (raw_weights("{}", length=1000), r"header of 1,000 bytes but is only 10"),
    "header too large": (
        raw_weights("{}", length=MAX_HEADER_BYTES + 1),
        r"header of 100,000,001 bytes; at most 100,000,000",
    ),
    "git lfs pointer": (
        text("model.safetensors", "version https://git-lfs"),
        r"Run git lfs pull",
    ),
    "header not JSON": (raw_weights("{nonsense}"), r"header of model\.safetensors is not JSON"),
    "header not an object": (raw_weights("[]"), r"does not begin with an opening brace"),
    "header key twice": (raw_weights('{"w":1,"w":2}'), r"holds the key 'w' twice"),
    "header metadata": (raw_weights('{"__metadata__":{"a":1}}'), r"__metadata__ that maps"),
    "header entry a number": (raw_weights('{"w":1}'), r"'w' .* dtype, shape and data_offsets"),
    "unknown dtype": (one_tensor(dtype="F12"), r"unknown dtype 'F12'"),
    "dtype a list": (one_tensor(dtype=[]), r"unknown dtype"),
    "negative shape": (one_tensor(shape=[-2]), r"not a list of sizes from 0 up"),
    "boolean shape": (one_tensor(shape=[True, 2]), r"not a list of sizes from 0 up"),
    "absurd shape": (one_tensor(shape=[2**62, 2**62]), r"takes 8 bytes, which do not fit F32"),
    "shape beyond 64 bits": (one_tensor(shape=[2**70]), r"not a list of sizes"),
    "many dimensions": (one_tensor(shape=[1] * 9), r"9 dimensions; at most 8"),
    "size against shape": (
        one_tensor(shape=[3]),
        r"takes 8 bytes, which do not fit F32 of .*\[3\]",
    ),
    "offsets backwards": (one_tensor(data_offsets=[8, 0]), r"ends at byte 0 before it starts"),
    "offsets negative": (one_tensor(data_offsets=[-8, 0]), r"not two counts of bytes"),
    "offsets of floats": (one_tensor(data_offsets=[0.0, 8.0]), r"not two counts of bytes"),
    "offsets beyond the file": (
        one_tensor(shape=[20], data_offsets=[0, 80]),
        r"'w' ends at byte .* only .* bytes long; the download is incomplete",
    ),
    "overlap": (two_tensors([0, 8], [4, 12], 12), r"'b' .* overlaps the one before"),
    "hole": (two_tensors([0, 4], [8, 12], 12), r"'b' in .* leaves a hole"),
    "cut short": (truncate_weights, r"ends at byte .* the download is incomplete"),
    "too long": (extend_weights, r"has 4 bytes that belong to no tensor"),
    "no tensors": (raw_weights("{}"), r"hold no tensors"),
    # the tensors
    "missing tensor": (
        weights(lambda w: w.pop(LAYER)),
        rf"1 tensor is missing.*{LAYER}|1 tensor is.*first {LAYER}",
    ),
    "extra tensor": (
        tensor("model.extra.weight", "F32", [1], 4),
        r"1 tensor .*model\.extra\.weight",
    ),
    "extra head": (
        steps(config(tie_word_embeddings=True), tensor("lm_head.bias", "F32", [1], 4)),
        r"unknown to this architecture, first 'lm_head\.bias'",
    ),
    "more layers than tensors": (config(num_hidden_layers=3), r"9 tensors .*model\.layers\.2"),
    "wrong shape": (
        config(intermediate_size=65),
        r"has the shape \[64, 32\]; .* makes it \[65, 32\]",
    ),
    "wrong vocab": (config(vocab_size=300), r"embed_tokens.*\[264, 32\]; .*\[300, 32\]"),
    "float8": (
        tensor("model.norm.weight", "F8_E4M3", [32], 32),
        r"stored as F8_E4M3; only BF16, F16",
    ),
    "int8": (tensor("model.norm.weight", "I8", [32], 32), r"norm\.weight' .* stored as I8"),
    "uint8": (tensor("model.norm.weight", "U8", [32], 32), r"stored as U8"),
    "float64": (tensor("model.norm.weight", "F64", [32], 256), r"F64; .* Use an unquantized copy"),
    # shards
    "index not JSON": (text("model.safetensors.index.json", "?"), r"index\.json is not JSON"),
    "index without map": (text("model.safetensors.index.json", "{}"), r"has no weight_map"),
    "index and whole file": (
        text("model.safetensors.index.json", '{"weight_map": {"a": "b.safetensors"}}'),
        r"names 1 of 1 shards that are not there, first b\.safetensors",
    ),
    "two sets of weights": (
        steps(
            lambda p: shutil.copy(p / "model.safetensors", p / "other.safetensors"),
            text("model.safetensors.index.json", '{"weight_map": {"a": "other.safetensors"}}'),
        ),
        r"two different sets of weights",
    ),
    "shards without index": (
        steps(write_shards, remove("model.safetensors.index.json")),
        r"model-00001-of-00002\.safetensors is neither .* fetch the index",
    ),
    "shard absent": (steps(write_shards, remove(SHARD_1)), r"1 of 2 shards that are not there"),
    "shard outside": (
        map_to("../other/model.safetensors"),
        r"'\.\./other/model\.safetensors'; shard",
    ),
    "shard absolute": (
        map_to("/etc/model.safetensors"),
        r"must be \.safetensors files in the model",
    ),
    "shard a pickle": (map_to("model.bin"), r"names the shard 'model\.bin'"),
    "shard a number": (map_to(3), r"maps 'model\.norm\.weight' to no file name"),
    "tensor in another shard": (steps(write_shards, move_in_index), r"places .* which lacks it"),
    "tensor not in index": (steps(write_shards, drop_from_index), r"index\.json does not list"),
    "tensor in two shards": (steps(write_shards, duplicate_in_shards), r"is in both"),
    # tokenizer
    "no tokenizer": (remove("tokenizer.json"), r"tokenizer\.json is missing\. Fetch it"),
    "sentencepiece": (
        steps(remove("tokenizer.json"), text("tokenizer.model", "x")),
        r"only a sentencepiece tokenizer\.model\. Convert it once with transformers",
    ),
    "tokenizer not JSON": (text("tokenizer.json", "{"), r"tokenizer\.json is not JSON"),
    "tokenizer of nothing": (text("tokenizer.json", "{}"), r"has no model with a vocab"),
    "tokenizer empty": (text("tokenizer.json", '{"model":{"vocab":{}}}'), r"empty vocabulary"),
    "token id a string": (tokenizer(model={"vocab": {"a": "1"}}), r"gives 'a' the id '1'"),
    "token id negative": (tokenizer(model={"vocab": {"a": -1}}), r"the id -1; that is no token id"),
    "unigram entry": (tokenizer(model={"vocab": [["a", 0.0], 7]}), r"not \[token, score\]"),
    "added token": (tokenizer(added_tokens=[{"id": 1}]), r"an added token without content"),
    "tokenizer too large for the embedding": (
        tokenizer(added_tokens=[{"id": 264, "content": "<x>"}]),
        r"largest token id is 264, but the embedding has 264 rows",
    ),
    "special token a number": (tokenizer_config(bos_token=1), r"bos_token .* must be a string"),
    "add_bos_token a word": (
        tokenizer_config(add_bos_token="yes"),
        r"add_bos_token .* true or false",
    ),
    "template a number": (
        tokenizer_config(chat_template=1),
        r"chat_template .* must be a string or",
    ),
    "template list of strings": (
        tokenizer_config(chat_template=["x"]),
        r"list of objects with name",
    ),
    "template too long": (tokenizer_config(chat_template="x" * 1_000_001), r"1,000,001 characters"),
    "template file not UTF-8": (text("chat_template.jinja", "\udcff"), r"jinja is not UTF-8"),
    # ends and defaults
    "end beyond vocabulary": (
        config(eos_token_id=264),
        r"eos_token_id 264 is beyond .* 264 tokens",
    ),
    "end a word": (generation_config(eos_token_id="</s>"), r"eos_token_id is '</s>'; .* token ids"),
    "temperature a word": (
        generation_config(temperature="hot"),
        r"temperature is 'hot', not a num",
    ),
    "top_p too large": (generation_config(top_p=1.5), r"top_p is 1\.5; it must be 0\.0 to 1\.0"),
    "infinite penalty": (text("generation_config.json", '{"min_p": Infinity}'), r"min_p is inf"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_DIRECTORIES.values(), ids=BAD_DIRECTORIES.keys())
def test_a_bad_directory_is_refused_in_its_own_words(
    model: Path, spoil: Spoil, message: str
) -> None:
    spoil(model)
    with pytest.raises(ModelRefused, match=message) as refusal:
        open_model(model)
    assert len(refusal.value.message) < 500
    assert refusal.value.message.isprintable()


def test_a_directory_of_too_many_files_is_refused_before_it_is_walked_through(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.models.directory.inventory.MAX_ENTRIES", 3)
    with pytest.raises(ModelRefused, match="more than 3 files; is it a model directory"):
        open_model(model)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(model: Path) -> None:
    (model / "config.json").chmod(0)
    with pytest.raises(ModelRefused, match=r"config\.json cannot be read: Permission denied"):
        open_model(model)


def test_a_non_native_model_is_held_to_the_dtypes_and_the_vocabulary_too(model: Path) -> None:
    change_json(model / "config.json", model_type="gpt2", architectures=["GPT2LMHeadModel"])
    add_tensor(model, "h.0.attn.bias", "BOOL", [4], bytes(4))  # a mask buffer
    assert "h.0.attn.bias" not in open_model(model).tensors
    add_tensor(model, "h.0.mlp.weight", "I8", [4], bytes(4))
    with pytest.raises(ModelRefused, match="stored as I8"):
        open_model(model)


# The lock.


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_a_model_that_matches_its_lock_opens(model: Path, place: str) -> None:
    write_lock(model, (model if place == "inside" else model.parent) / "model.lock.json")
    assert open_model(model).is_locked


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_changed_byte_is_refused_naming_the_file(model: Path, name: str) -> None:
    write_lock(model, model / "model.lock.json")
    content = bytearray((model / name).read_bytes())
    content[-1] ^= 1
    (model / name).write_bytes(content)
    with pytest.raises(ModelRefused, match=rf"^{re.escape(name)} is not the file .* sha256"):
        open_model(model)


def test_a_changed_size_is_refused_before_anything_is_hashed(model: Path) -> None:
    write_lock(model, model / "model.lock.json")
    truncate_weights(model)

    class NoHasher(FileHasher):
        def hash_files(self, paths: object) -> dict[Path, str]:
            raise AssertionError(paths)

    with pytest.raises(ModelRefused, match=r"model\.safetensors is not the file .* bytes"):
        open_model(model, hasher=NoHasher())


def test_a_file_the_lock_does_not_know_is_refused(model: Path) -> None:
    write_lock(model, model / "model.lock.json")
    (model / "chat_template.jinja").write_text("slipped in")
    with pytest.raises(ModelRefused, match=r"chat_template\.jinja is not in .*model\.lock\.json"):
        open_model(model)


def test_a_file_the_lock_knows_and_the_directory_lacks_is_refused(model: Path) -> None:
    (model / "LICENSE").write_text("free")
    write_lock(model, model / "model.lock.json")
    (model / "LICENSE").unlink()
    with pytest.raises(ModelRefused, match="pins LICENSE, which is not there"):
        open_model(model)


@pytest.mark.parametrize(
    ("lock", "message"),
    [
        ("{}", "no files object"),
        ('{"files": {"../x": {"sha256": "0", "size": 1}}}', "not a plain file name"),
        ('{"files": {"x": {"sha256": "0", "size": 1}}}', "64 small hex digits"),
        ('{"files": {"x": 1}}', "must pin x"),
        ("no", r"model\.lock\.json is not JSON"),
    ],
)
def test_a_malformed_lock_is_refused(model: Path, lock: str, message: str) -> None:
    (model / "model.lock.json").write_text(lock)
    with pytest.raises(ModelRefused, match=message):
        open_model(model)


# Nothing a file holds may end in anything but ModelRefused.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "F4", "I8"]) | json_values,
        "shape": st.lists(st.integers(-1, 5) | st.integers(), max_size=4) | json_values,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | json_values,
    },
)
headers = st.dictionaries(st.text(max_size=8), entries | json_values, max_size=4)


def accept_or_refuse(content: bytes, file_bytes: int) -> None:
    try:
        tensors = parse_header(content, file_bytes=file_bytes, name="w.safetensors")
    except ModelRefused:
        return
    position = 8 + len(content)
    for stored in tensors.values():
        assert stored.start == position
        position = stored.end
    assert position == file_bytes


@settings(max_examples=100, deadline=None)
@given(headers, st.integers(0, 64))
def test_any_header_is_accepted_whole_or_refused(header: dict[str, object], num_bytes: int) -> None:
    content = json.dumps(header).encode()
    accept_or_refuse(content, 8 + len(content) + num_bytes)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=64).map(lambda tail: b"{" + tail), st.integers(0, 200))
def test_any_header_bytes_are_accepted_whole_or_refused(content: bytes, file_bytes: int) -> None:
    accept_or_refuse(content, file_bytes)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=40))
def test_any_file_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    try:
        read_header(path)
    except ModelRefused:
        return


FUZZED = {
    "config.json": sorted(model_config()),
    "tokenizer.json": sorted(byte_tokenizer()),
    "tokenizer_config.json": ["bos_token", "eos_token", "chat_template", "add_bos_token"],
    "generation_config.json": ["eos_token_id", "temperature", "top_p", "top_k", "min_p"],
    "model.lock.json": ["files"],
    "model.safetensors.index.json": ["weight_map"],
}


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_value_in_any_json_file_is_understood_or_refused(
    data: st.DataObject, tmp_path: Path
) -> None:
    path = tmp_path / "fuzzed"
    if not path.exists():
        write_model(path)
    name = data.draw(st.sampled_from(sorted(FUZZED)))
    key = data.draw(st.sampled_from(FUZZED[name]))
    kept = (path / name).read_bytes() if (path / name).exists() else None
    try:
        change_json(path / name, **{key: data.draw(json_values)})
        open_model(path)
    except ModelRefused:
        pass
    finally:
        if kept is None:
            (path / name).unlink()
        else:
            (path / name).write_bytes(kept)


def test_a_model_in_a_hub_cache_has_the_name_of_its_repository(tmp_path: Path) -> None:
    snapshot = write_model(tmp_path / "models--acme--tiny-llama" / "snapshots" / ("a" * 40))
    assert open_model(snapshot).name == "acme/tiny-llama"
    assert open_model(snapshot, name="mine").name == "mine"
