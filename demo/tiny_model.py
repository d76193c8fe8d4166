"""A chat model with random weights, made on the spot: it speaks nonsense, fluently, through every real code path.

    python -m demo.tiny_model FOLDER [--size tiny|small]

For trying and testing the vLLM engine where no weights can be downloaded. Byte-level BPE trained on Python's own
library, a ChatML template, and a Qwen3 network of about 5 (`tiny`) or 100 (`small`) million parameters in bfloat16.
The same call makes the same weights.
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WINDOW = 2048
VOCABULARY = 8192

#: The network by size, as `Qwen3Config` takes it.
SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "small": {
        "hidden_size": 768,
        "intermediate_size": 2560,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
    },
}

_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make(folder: Path, size: str = "tiny") -> None:
    """Write tokenizer and weights into `folder`; one that is finished is left alone."""
    if (folder / "model.safetensors").exists():
        return
    # Whole libraries without useful types: what they are given is checked by loading the result.
    import torch
    import transformers

    library: Any = transformers
    tokenizer = _tokenizer(library)
    torch.manual_seed(0)
    network = library.Qwen3ForCausalLM(
        library.Qwen3Config(
            vocab_size=len(tokenizer),
            head_dim=64,
            max_position_embeddings=WINDOW,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **SIZES[size],
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    network.to(torch.bfloat16).save_pretrained(folder)


def _tokenizer(library: Any) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train(sorted(str(path) for path in Path(sysconfig.get_path("stdlib")).glob("*.py")), trainer)
    fast = library.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",  # noqa: S106  # tokens of a vocabulary
        pad_token="<|endoftext|>",  # noqa: S106
        model_max_length=WINDOW,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = _TEMPLATE
    return fast


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a chat model with random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny")
    arguments = parser.parse_args()
    make(arguments.folder, arguments.size)
    sys.stdout.write(f"{arguments.folder}: a {arguments.size} chat model with random weights\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
