"""Writes longpo.json. Usage: python longpo.py > longpo.json

The preference is the loss of TRL's DPOTrainer on long prompts, which is given the reference's log-probabilities of the same
answers after short prompts; the likelihood is the loss of transformers' model on the whole chosen sequence. Several turns are
beyond TRL: there the preference is the formula, with the log-probabilities of all turns added."""

import tempfile

import torch
import trl
from datasets import Dataset
from peer import METRICS, model, sequences, tokenizer, write

END = tokenizer.eos_token_id
single = [
    [{"document": "abc def ghi jkl ", "chunk": "def ", "prompt": "what ", "chosen": "one", "rejected": "another"}],
    [{"document": "the quick brown fox jumps ", "chunk": "brown fox ", "prompt": "who", "chosen": "fox", "rejected": "x"}],
    [{"document": "zzz yyy xxx www vvv uuu", "chunk": "vvv", "prompt": " so", "chosen": "a longer answer", "rejected": "no"}],
]
several = [
    {"document": "the quick brown fox jumps ", "chunk": "brown fox ", "prompt": "who", "chosen": "fox", "rejected": "x"},
    {"chunk": "quick ", "prompt": " how", "chosen": "fast", "rejected": "slowly"},
    {"chunk": "jumps", "prompt": " and", "chosen": "over", "rejected": "it"},
]


def encode(text):
    return tokenizer(text)["input_ids"]


def long(turns, key):
    """The ids of one side and whether each is an answer's."""
    ids, mask = encode(turns[0]["document"]), [0] * len(turns[0]["document"])
    for turn in turns:
        for part, on in (encode(turn["prompt"]), 0), (encode(turn[key]) + [END], 1):
            ids, mask = ids + part, mask + [on] * len(part)
    return ids, mask


def scores(which, ids, mask):
    ids, mask = torch.tensor([ids]), torch.tensor([mask])
    return sequences(which, which, ids, mask)


def short(turns, key):
    """The reference's log-probabilities of the answers of one side."""
    found = []
    for turn in turns:
        prompt, answer = encode(turn["chunk"] + turn["prompt"]), encode(turn[key]) + [END]
        found += scores(model(2), prompt + answer, [0] * len(prompt) + [1] * len(answer))["logp"][0]
    return found


def pair(turns):
    """Statistics of the two sides and of the rest of the chosen sequence."""
    out = {"logp": [], "ref_logp": [], "top1": []}
    for key in ("chosen", "rejected"):
        stats = scores(model(1), *long(turns, key))
        out["logp"] += stats["logp"]
        out["top1"] += stats["top1"]
        out["ref_logp"].append(short(turns, key))
    ids, mask = long(turns, "chosen")
    rest = scores(model(1), ids, [1 - on for on in mask])
    return out, {"logp": rest["logp"], "top1": rest["top1"], "ref_logp": [[0.0] * len(rest["logp"][0])]}


def likelihood(turns):
    ids = torch.tensor([long(turns, "chosen")[0]])
    with torch.no_grad():
        return model(1)(input_ids=ids, labels=ids).loss.item()


def preference(documents, beta):
    """TRL's loss and metrics on single turns."""
    rows = [
        {"prompt": turn["document"] + turn["prompt"], "chosen": turn["chosen"], "rejected": turn["rejected"]} for (turn,) in documents
    ]
    args = trl.DPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=len(rows), report_to="none", use_cpu=True, bf16=False,
        gradient_checkpointing=False, beta=beta,
    )
    trainer = trl.DPOTrainer(model(1), ref_model=model(2), args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    rows = trainer.data_collator(list(trainer.train_dataset))
    for key in ("chosen", "rejected"):
        rows[f"ref_{key}_logps"] = torch.tensor([sum(short(turns, key)) for turns in documents], dtype=torch.double)
    trainer.precompute_ref_logps = True
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, rows).item()
    return loss, {key: trainer._metrics["train"][key][-1] for key in METRICS}


def formula(stats, beta):
    total = [sum(p) - sum(r) for p, r in zip(stats["logp"], stats["ref_logp"])]
    margin = torch.tensor(beta * (total[0] - total[1]), dtype=torch.double)
    return -torch.nn.functional.logsigmoid(margin).item(), {"rewards/margins": margin.item(), "rewards/chosen": beta * total[0]}


cases = []
for beta, lam, documents in [
    (0.1, 0.01, single), (0.01, 0.01, single[:2]), (0.5, 2.0, single[2:]), (0.1, 0.0, single[:1]), (0.1, 0.01, [several]), (2.0, 1.0, [several]),
]:
    pairs, rest = zip(*[pair(turns) for turns in documents])
    stats = {name: [rows for part in pairs + rest for rows in part[name]] for name in ("logp", "ref_logp", "top1")}
    loss, metrics = formula(pairs[0], beta) if documents[0] is several else preference(documents, beta)
    nll = sum(map(likelihood, documents)) / len(documents)
    metrics = {**metrics, "loss": nll + lam * loss, "nll_loss": nll, "preference_loss": loss}
    cases.append({
        "config": {"name": "longpo", "beta": beta, "lambda": lam}, "metrics": metrics, **stats, "contexts": len(documents),
    })
write(cases)
