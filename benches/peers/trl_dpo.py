"""DPO with LoRA on SmolLM2-135M's shape in TRL's DPOTrainer: seconds of a training step.

    python trl_dpo.py [--runs 5] [--precompute-ref] [--gradient-checkpointing]

The step is everything the trainer does between two steps: batch, reference and policy forward,
loss, backward, clipping, AdamW, metrics. All prompts and completions have the stated lengths, so
nothing is padded.
"""

import argparse
import tempfile

from measure import SMOLLM2, print_result, smollm2
from trl_steps import SETTINGS, arguments, clock, lora


def tokenizer():
    """Word-level over the model's whole vocabulary: `t17` is id 17, `</s>` is id 2."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"t{i}": i for i in range(SMOLLM2["vocab_size"])}
    del words["t2"]
    words["</s>"] = 2
    inner = Tokenizer(models.WordLevel(words, unk_token="</s>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="</s>")


def pairs(count: int, prompt: int, completion: int):
    import torch
    from datasets import Dataset

    def text(length: int) -> str:
        return " ".join(f"t{i}" for i in torch.randint(3, SMOLLM2["vocab_size"], (length,)).tolist())

    # TRL appends `</s>`, the completion's last token.
    return Dataset.from_list(
        [
            {"prompt": text(prompt), "chosen": " " + text(completion - 1), "rejected": " " + text(completion - 1)}
            for _ in range(count)
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2, help="pairs of a step")
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--completion", type=int, default=64)
    parser.add_argument("--precompute-ref", action="store_true", help="reference log-probabilities before the run")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    args = arguments(parser, warmup=3, runs=5)

    import torch
    import trl

    steps = args.warmup + args.runs

    times = clock()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trl.DPOTrainer(
            model=smollm2(args.attention),
            args=trl.DPOConfig(
                output_dir=scratch,
                per_device_train_batch_size=args.pairs,
                max_steps=steps,
                max_length=args.prompt + args.completion,
                precompute_ref_log_probs=args.precompute_ref,
                gradient_checkpointing=args.gradient_checkpointing,
                **SETTINGS,
            ),
            train_dataset=pairs(args.pairs * steps, args.prompt, args.completion),
            processing_class=tokenizer(),
            peft_config=lora(args.r),
            callbacks=[times],
        )
        sample = trainer.train_dataset[0]
        lengths = [len(sample[key]) for key in ("prompt_ids", "chosen_ids", "rejected_ids")]
        assert lengths == [args.prompt, args.completion, args.completion], lengths
        trainer.train()

    seconds = times.seconds[args.warmup :]
    tokens = 2 * args.pairs * (args.prompt + args.completion)
    settings = {
        "version": trl.__version__,
        "torch": torch.__version__,
        "attention": args.attention,
        "precompute_ref": args.precompute_ref,
        "gradient_checkpointing": args.gradient_checkpointing,
    }
    middle = sorted(seconds)[len(seconds) // 2]
    print_result("dpo", "trl", seconds, tokens, pairs_per_s=args.pairs / middle, **settings)


if __name__ == "__main__":
    main()
