"""Writes dpo.json: the loss and metrics of TRL's DPOTrainer on a tiny random Llama, with the log-probabilities that
went into them. Usage: python dpo.py > dpo.json

`label_smoothing` 0 is TRL's `sigmoid`. TRL's `sigmoid` ignores label_smoothing, so the smoothed cases are its `aot` with
one pair a batch, where sorting does nothing and the formula is conservative DPO's."""

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


def rows(m, ids, mask):
    logps = m(input_ids=ids).logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    top1 = m(input_ids=ids).logits[:, :-1].argmax(-1) == ids[:, 1:]
    keep = mask[:, 1:].bool()
    return [l[k].tolist() for l, k in zip(logps, keep)], [t[k].tolist() for t, k in zip(top1, keep)]


cases = []
for beta, smoothing, picked in [
    (0.1, 0.0, [0, 1, 2, 3]), (0.5, 0.0, [3, 1]), (2.0, 0.0, [2]), (0.1, 0.1, [0]), (0.5, 0.3, [2]),
]:
    policy, reference = model(1), model(2)
    args = trl.DPOConfig(
        output_dir=tempfile.mkdtemp(), beta=beta, label_smoothing=smoothing, loss_type=["aot" if smoothing else "sigmoid"],
        per_device_train_batch_size=len(picked), report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
    )
    trainer = trl.DPOTrainer(
        policy, ref_model=reference, args=args, train_dataset=Dataset.from_list([data[i] for i in picked]),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    policy.train()
    loss = trainer.compute_loss(policy, batch)
    logged = {k: v[-1] for k, v in trainer._metrics["train"].items()}
    with torch.no_grad():
        logp, top1 = rows(policy, batch["input_ids"], batch["completion_mask"])
        ref, _ = rows(reference, batch["input_ids"], batch["completion_mask"])
    half = len(picked)
    order = [i for p in range(half) for i in (p, p + half)]
    keys = ["mean_token_accuracy", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"]
    cases.append({
        "beta": beta, "label_smoothing": smoothing, "loss": loss.item(),
        "metrics": {k: logged[k] for k in keys + ["logps/chosen", "logps/rejected"]},
        "logp": [logp[i] for i in order], "ref_logp": [ref[i] for i in order], "top1": [top1[i] for i in order],
    })
json.dump({"trl": trl.__version__, "transformers": transformers.__version__, "cases": cases}, sys.stdout)
