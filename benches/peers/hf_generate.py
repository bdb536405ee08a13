"""Greedy decoding at batch 8 on SmolLM2-135M's shape with transformers' `generate`.

    python hf_generate.py [--dtype float32|bfloat16] [--cache dynamic|static] [--runs 5]

A run reads 8 prompts of 64 tokens and writes 64 tokens to each; nothing stops early. Tokens a
second count the new tokens over the whole run, the prompts' pass included.
"""

import argparse

from measure import SMOLLM2, print_result, smollm2, timed, use_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--cache", default="dynamic", choices=["dynamic", "static"])
    parser.add_argument("--compile", action="store_true", help="let generate compile the static-cache decoder")
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()

    import torch
    import transformers

    use_threads(args.threads)
    model = smollm2(args.attention, getattr(torch, args.dtype)).eval()
    model.generation_config.eos_token_id = None
    ids = torch.randint(3, SMOLLM2["vocab_size"], (args.batch, args.prompt))
    settings = {"cache_implementation": "static"} if args.cache == "static" else {}

    @torch.inference_mode()
    def run() -> None:
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=args.new,
            do_sample=False,
            disable_compile=not args.compile,
            **settings,
        )
        assert out.shape == (args.batch, args.prompt + args.new)

    seconds = timed(run, args.warmup, args.runs)
    print_result(
        "generate",
        "transformers",
        seconds,
        args.batch * args.new,
        version=transformers.__version__,
        torch=torch.__version__,
        dtype=args.dtype,
        cache=args.cache,
        compile=args.compile,
        attention=args.attention,
    )


if __name__ == "__main__":
    main()
