"""Full fine-tuning step of SmolLM2-135M's shape in PyTorch: forward, loss, backward, fused AdamW.

    python torch_step.py [--attention sdpa|eager] [--runs 5]
"""

import argparse

from measure import SMOLLM2, print_result, smollm2, timed, use_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=256, help="tokens of each sequence")
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()

    import torch

    use_threads(args.threads)
    model = smollm2(args.attention).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids = torch.randint(SMOLLM2["vocab_size"], (args.batch, args.tokens))

    def step() -> None:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = timed(step, args.warmup, args.runs)
    print_result("step", "pytorch", seconds, args.batch * args.tokens, version=torch.__version__, attention=args.attention)


if __name__ == "__main__":
    main()
