"""Writes hypo.json: DPO and the surrogate of the reverse KL on samples of a tiny random Llama, and PyTorch's derivative of
both by the log-probabilities. Usage: python hypo.py > hypo.json"""

import torch
from peer import by_hand, data, model, tokenizer, write


def draw(policy, prompt, longest):
    ids = list(prompt)
    while len(ids) < len(prompt) + longest and (len(ids) == len(prompt) or ids[-1] != tokenizer.eos_token_id):
        p = policy(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
        ids.append(torch.multinomial(p, 1).item())
    return ids[len(prompt):]


def scores(model, prompt, completion):
    z = model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return z.gather(-1, torch.tensor(completion)[:, None])[:, 0].tolist()


@torch.no_grad()
def sampled(picked, k):
    policy, reference, out = model(1), model(2), {"logp": [], "ref_logp": []}
    torch.manual_seed(3)
    for i in picked:
        prompt = tokenizer(data[i]["prompt"])["input_ids"]
        for _ in range(k):
            completion = draw(policy, prompt, 5)
            out["logp"].append(scores(policy, prompt, completion))
            out["ref_logp"].append(scores(reference, prompt, completion))
    return out


def weights(ratios, k, credit):
    """The detached factor of each token's log-probability, for the samples of one prompt."""
    total = torch.stack([r.sum() for r in ratios])
    baseline = (total.sum() - total) / (k - 1) if k > 1 else torch.zeros(k)
    to_go = [r.flip(0).cumsum(0).flip(0) if credit == "reward_to_go" else r.sum().expand(len(r)) for r in ratios]
    return [(r - b).detach() for r, b in zip(to_go, baseline)]


cases = []
for beta, lam, k, credit, every, picked in [
    (0.1, 0.01, 2, "whole_sequence", 1, [0, 1, 2, 3]), (0.5, 0.3, 3, "reward_to_go", 1, [3, 1]), (0.1, 1.0, 1, "whole_sequence", 4, [2, 0]),
]:
    config = {"name": "hypo", "beta": beta, "lambda": lam, "num_generations": k, "credit": credit, "every": every}
    samples, found = sampled(picked, k), {}

    def metrics(stats):
        pairs = [torch.tensor(rows, dtype=torch.double, requires_grad=True) for rows in stats["logp"]]
        drawn = [torch.tensor(rows, dtype=torch.double, requires_grad=True) for rows in samples["logp"]]
        ratio = torch.stack([p.sum() - sum(r) for p, r in zip(pairs, stats["ref_logp"])])
        dpo = -torch.nn.functional.logsigmoid(beta * (ratio[0::2] - ratio[1::2])).mean()
        ratios = [p - torch.tensor(r, dtype=torch.double) for p, r in zip(drawn, samples["ref_logp"])]
        factors = [w for at in range(0, len(drawn), k) for w in weights(ratios[at : at + k], k, credit)]
        surrogate = torch.stack([(p * w).sum() for p, w in zip(drawn, factors)]).mean()
        (dpo + lam * every * surrogate).backward()
        found["cotangent"] = [rows.grad.tolist() for rows in pairs + drawn]
        return {
            "loss": dpo.item(), "surrogate": surrogate.item(), "kl": torch.stack([r.sum() for r in ratios]).mean().item(),
            "kl_k3": torch.stack([((-r).exp() - 1 + r).sum() for r in ratios]).mean().item(),
        }

    case = by_hand(config, picked, metrics)
    for name in ("logp", "ref_logp"):
        case[name] += samples[name]
    case["divergence"] += [[0.0] * len(rows) for rows in samples["logp"]]
    case["top1"] += [[False] * len(rows) for rows in samples["logp"]]
    cases.append({**case, **found, "samples": [k] * len(picked)})
write(cases)
