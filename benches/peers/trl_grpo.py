"""GRPO with LoRA on SmolLM2-135M's shape in TRL's GRPOTrainer: seconds of a training step.

    python trl_grpo.py [--runs 3]

The step is everything the trainer does between two steps: sampling with transformers, rewards, reference and policy forward,
loss, backward, clipping, AdamW, metrics. No completion ends before the stated length.
"""

import argparse
import tempfile

from measure import SMOLLM2, print_result, smollm2
from trl_dpo import tokenizer
from trl_steps import SETTINGS, arguments, clock, lora


def prompts(count: int, length: int):
    import torch
    from datasets import Dataset

    def text() -> str:
        return " ".join(f"t{i}" for i in torch.randint(3, SMOLLM2["vocab_size"], (length,)).tolist())

    return Dataset.from_list([{"prompt": text()} for _ in range(count)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=8, help="completions of a step, all of one prompt")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--completion", type=int, default=128)
    args = arguments(parser, warmup=1, runs=3)

    import torch
    import trl

    steps = args.warmup + args.runs

    def reward(completion_ids, **_):
        assert all(len(ids) == args.completion for ids in completion_ids)
        return [float(i % 3) for i in range(len(completion_ids))]

    times = clock()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trl.GRPOTrainer(
            model=smollm2(args.attention),
            reward_funcs=reward,
            args=trl.GRPOConfig(
                output_dir=scratch,
                per_device_train_batch_size=args.completions,
                num_generations=args.completions,
                max_completion_length=args.completion,
                generation_kwargs={"min_new_tokens": args.completion},
                beta=0.04,
                max_steps=steps,
                gradient_checkpointing=False,
                **SETTINGS,
            ),
            train_dataset=prompts(steps, args.prompt),
            processing_class=tokenizer(),
            peft_config=lora(args.r),
            callbacks=[times],
        )
        trainer.train()

    seconds = times.seconds[args.warmup :]
    tokens = args.completions * (args.prompt + args.completion)
    middle = sorted(seconds)[len(seconds) // 2]
    settings = {"version": trl.__version__, "torch": torch.__version__, "attention": args.attention}
    print_result("grpo", "trl", seconds, tokens, samples_per_s=args.completions / middle, **settings)


if __name__ == "__main__":
    main()
