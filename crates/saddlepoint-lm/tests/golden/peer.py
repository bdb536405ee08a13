"""What the golden scripts share: a tiny random Llama, pairs, and the loss and metrics of a TRL
trainer on them with the log-probabilities that went into them. Needs TRL 1.16."""

import json
import sys
import tempfile

import tokenizers
import torch
import transformers
import trl
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

text = "abcdefghijklmnopqrstuvwxyz "
vocab = {"<pad>": 0, "<eos>": 1, **{c: i + 2 for i, c in enumerate(text)}}
inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<pad>"))
inner.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")


def model(seed):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocab), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.6, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )
    return LlamaForCausalLM(config).double()


data = [
    {"prompt": "ab", "chosen": " cde", "rejected": " fgh"},
    {"prompt": "hello ", "chosen": "world", "rejected": "w"},
    {"prompt": "x", "chosen": "y", "rejected": " longer answer"},
    {"prompt": "two words ", "chosen": "and more", "rejected": "or less"},
]


def sequences(policy, reference, ids, mask):
    """The statistics of the completions, sequence by sequence."""
    with torch.no_grad():
        z, r = (m(input_ids=ids).logits[:, :-1].log_softmax(-1) for m in (policy, reference))
    target = ids[:, 1:, None]
    values = {
        "logp": z.gather(-1, target)[..., 0], "ref_logp": r.gather(-1, target)[..., 0],
        "divergence": (r.exp() * (r - z)).sum(-1), "top1": z.argmax(-1) == target[..., 0],
    }
    keep = mask[:, 1:].bool()
    return {name: [v[i][keep[i]].tolist() for i in range(len(ids))] for name, v in values.items()}


def statistics(policy, reference, ids, mask):
    """Pair by pair: the batch has all chosen completions before the rejected ones."""
    values, half = sequences(policy, reference, ids, mask), len(ids) // 2
    order = [i for pair in range(half) for i in (pair, pair + half)]
    return {name: [rows[i] for i in order] for name, rows in values.items()}


def padded(picked):
    """Ids and completion masks of pairs as TRL lays them out."""
    sequences = []
    for key in ("chosen", "rejected"):
        for i in picked:
            prompt = tokenizer(data[i]["prompt"])["input_ids"]
            completion = tokenizer(data[i][key])["input_ids"] + [tokenizer.eos_token_id]
            sequences.append((prompt + completion, [0] * len(prompt) + [1] * len(completion)))
    longest = max(len(ids) for ids, _ in sequences)
    pad = lambda values: values + [0] * (longest - len(values))
    return tuple(torch.tensor([pad(s[k]) for s in sequences]) for k in (0, 1))


METRICS = [
    "mean_token_accuracy", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen",
    "logps/rejected",
]


def case(config, picked, keys=METRICS, **settings):
    """TRL's DPOTrainer with `settings` on the pairs `picked`, as a case of our method with `config`."""
    policy, reference = model(1), model(2)
    args = trl.DPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=len(picked), report_to="none", use_cpu=True, bf16=False,
        gradient_checkpointing=False, **settings,
    )
    trainer = trl.DPOTrainer(
        policy, ref_model=reference, args=args, train_dataset=Dataset.from_list([data[i] for i in picked]),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    policy.train()
    loss = trainer.compute_loss(policy, batch).item()
    logged = {k: v[-1] for k, v in trainer._metrics["train"].items()}
    metrics = {"loss": loss, **{k: logged[k] for k in keys}}
    return {"config": config, "metrics": metrics, **statistics(policy, reference, batch["input_ids"], batch["completion_mask"])}


def by_hand(config, picked, metrics):
    """A case whose `metrics` are made from the statistics, for peers that have the loss as a function."""
    stats = statistics(model(1), model(2), *padded(picked))
    return {"config": config, "metrics": metrics(stats), **stats}


def write(cases):
    json.dump({"trl": trl.__version__, "transformers": transformers.__version__, "cases": cases}, sys.stdout)
